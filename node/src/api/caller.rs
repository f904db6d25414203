//! Who calls: until when a client waits for its answer (see `in_time`), for which application it asks (`tidemark-application`).
//! Never: what follows from it.

use tonic::{Request, Status};

use super::in_time::Until;
use super::refused;
use crate::catalog::types::is_id;
use crate::error::{Error, Reason, Result};
use crate::limits::APPLICATION_NAME_BYTES_MAX;
use crate::query::Caller;

/// Metadata that names an application.
const APPLICATION: &str = "tidemark-application";

/// Whoever calls.
pub(super) fn caller<T>(request: &Request<T>) -> std::result::Result<Caller, Status> {
    let named = request.metadata().get(APPLICATION);
    let application = named.map_or(Ok(String::new()), |name| application(name.as_bytes()));
    Ok(Caller {
        deadline: request.extensions().get::<Until>().map(|until| until.0),
        application: application.map_err(|error| refused(&error))?,
    })
}

/// The name of an application.
fn application(name: &[u8]) -> Result<String> {
    match std::str::from_utf8(name) {
        Ok(text) if is_id(text, APPLICATION_NAME_BYTES_MAX) => Ok(text.to_owned()),
        _ => Err(Error::new(
            Reason::InvalidId,
            format!("{:?} is no name of an application", String::from_utf8_lossy(name)),
        )
        .field(APPLICATION)
        .hint("give [A-Za-z0-9._:-]{1,64}, or leave it out")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_applications() {
        for name in ["flood", "Flood-Monitor:2", "a", &"x".repeat(64)] {
            assert_eq!(application(name.as_bytes()).ok().as_deref(), Some(name));
        }
        for name in ["", " ", "(others)", "a b", "\u{e9}", "a\nb", &"x".repeat(65)] {
            let refused = application(name.as_bytes()).map_err(|error| error.reason());
            assert_eq!(refused, Err(Reason::InvalidId), "{name:?}");
        }
    }
}
