//! Programs of the workspace, run as their users run them. Never here: cases.
//! Invariant: a program is the one that was built with the tests; one that is missing is told, never passed over.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value as Json;

/// What was printed, with six digits behind the point.
pub(crate) fn rounded(printed: &Json) -> Json {
    match printed {
        Json::Array(all) => all.iter().map(rounded).collect(),
        Json::Number(number) if number.is_f64() => {
            let number = number.as_f64().unwrap();
            ((number * 1e6).round() / 1e6).into()
        }
        other => other.clone(),
    }
}

/// A program, which lies beside the server's. An example of the client lies there too, as `examples/NAME`.
pub(crate) fn built(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_tidemarkd")).with_file_name(name);
    let path_shown = path.display();
    assert!(
        path.exists(),
        "{path_shown} is missing: cargo build --workspace --bins --examples"
    );
    path
}

/// Runs a program to its end.
pub(crate) async fn run(name: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(built(name));
    command.args(arguments);
    tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap()
}

/// What a program prints that ends well.
pub(crate) async fn printed(name: &str, arguments: &[&str]) -> String {
    let output = run(name, arguments).await;
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} {arguments:?}: {err}");
    String::from_utf8(output.stdout).unwrap()
}
