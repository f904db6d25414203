//! One HTTP/1.1 connection to a store on this machine. Never here: what is said over it. Invariant: an answer other than
//! 2xx is an error that quotes it; a connection that broke is opened again by the next call.

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Bytes of a refusal that are quoted.
const QUOTED: usize = 300;

/// A connection, opened when first needed.
#[derive(Debug)]
pub(crate) struct Http {
    address: String,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Http {
    pub(crate) fn new(address: &str) -> Http {
        Http {
            address: address.to_owned(),
            sender: None,
        }
    }

    pub(crate) async fn get(&mut self, path: &str) -> Result<Bytes> {
        self.call(Method::GET, path, Bytes::new()).await
    }

    pub(crate) async fn post(&mut self, path: &str, body: Bytes) -> Result<Bytes> {
        self.call(Method::POST, path, body).await
    }

    async fn call(&mut self, method: Method, path: &str, body: Bytes) -> Result<Bytes> {
        let mut sender = match self.sender.take() {
            Some(sender) if !sender.is_closed() => sender,
            _ => open(&self.address).await?,
        };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", &self.address)
            .body(Full::new(body))?;
        sender.ready().await?;
        let answer = sender.send_request(request).await.with_context(|| short(path))?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        self.sender = Some(sender);
        if !status.is_success() {
            let text = String::from_utf8_lossy(body.get(..QUOTED).unwrap_or(&body)).into_owned();
            bail!("{}: {status}: {text}", short(path));
        }
        Ok(body)
    }
}

async fn open(address: &str) -> Result<SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(address).await.with_context(|| address.to_owned())?;
    stream.set_nodelay(true)?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    // Ends with the sender; what broke shows in the call that waits.
    tokio::spawn(connection);
    Ok(sender)
}

fn short(path: &str) -> String {
    path.chars().take(QUOTED).collect()
}

/// A path with parameters, percent-encoded.
pub(crate) fn with_parameters(path: &str, parameters: &[(&str, &str)]) -> String {
    let mut all = path.to_owned();
    for (i, (key, value)) in parameters.iter().enumerate() {
        all.push(if i == 0 { '?' } else { '&' });
        all.push_str(key);
        all.push('=');
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                all.push(char::from(byte));
            } else {
                all.push_str(&format!("%{byte:02X}"));
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_encoded() {
        let path = with_parameters("/q", &[("query", "max(x{a=\"b\"}[1h]) by (c)"), ("time", "1.5")]);
        assert_eq!(
            path,
            "/q?query=max%28x%7Ba%3D%22b%22%7D%5B1h%5D%29%20by%20%28c%29&time=1.5"
        );
    }
}
