//! As much of HTTP as a browser needs for one page, one value that changes, and one thing to say. Never here: gauges.
//! Invariant: only this machine can ask, and a page of another site cannot ask or say anything through its browser.

use std::time::Duration;

use serde_json::Value as Json;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

const HEADERS: &str = "Cache-Control: no-store\r\nConnection: close\r\nX-Content-Type-Options: nosniff\r\n\
    Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:";

/// What the page says at most.
const SAID_BYTES_MAX: usize = 4 << 10;

/// Serves `page` at `/` and the newest board at `/board`, and hands to `post` what the page says at `/acknowledge`; port 0 takes any
/// that is free. Prints the address.
pub(crate) async fn serve<P, F>(
    port: u16,
    page: &'static str,
    board: watch::Receiver<Json>,
    post: P,
) -> anyhow::Result<()>
where
    P: FnOnce(Json) -> F + Clone + Send + 'static,
    F: Future<Output = Result<(), String>> + Send + 'static,
{
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    println!("http://{}/", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        let answer = answer(stream, page, board.clone(), post.clone());
        tokio::spawn(tokio::time::timeout(Duration::from_secs(5), answer));
    }
}

pub(crate) async fn answer<F: Future<Output = Result<(), String>>>(
    mut stream: TcpStream,
    page: &str,
    board: watch::Receiver<Json>,
    post: impl FnOnce(Json) -> F,
) -> std::io::Result<()> {
    let (reader, mut writer) = stream.split();
    let mut lines = BufReader::new(reader.take(16 << 10)).lines();
    let request = lines.next_line().await?.unwrap_or_default();
    let (mut host, mut origin, mut length) = (String::new(), String::new(), 0);
    while let Some(line) = lines.next_line().await?.filter(|line| !line.is_empty()) {
        let line = line.to_ascii_lowercase();
        match line.split_once(": ") {
            Some(("host", value)) => host = value.to_owned(),
            Some(("origin", value)) => origin = value.to_owned(),
            Some(("content-length", value)) => length = value.parse().unwrap_or(0),
            _ => {}
        }
    }
    // A name of this machine, or a name that somebody else made point here.
    let is_ours = ["127.0.0.1:", "localhost:"].iter().any(|name| host.starts_with(name));
    let (status, form, body) = match request.split(' ').take(2).collect::<Vec<_>>()[..] {
        _ if !is_ours => ("421 Misdirected Request", "text/plain", "ask 127.0.0.1".to_owned()),
        ["GET", "/"] => ("200 OK", "text/html; charset=utf-8", page.to_owned()),
        ["GET", "/board"] => ("200 OK", "application/json", board.borrow().to_string()),
        // Any page may send such a request here, but its browser says whose it is.
        ["POST", "/acknowledge"] if origin != format!("http://{host}") => {
            ("403 Forbidden", "text/plain", "only this page may".to_owned())
        }
        ["POST", "/acknowledge"] if length <= SAID_BYTES_MAX => {
            let mut said = vec![0; length];
            lines.into_inner().read_exact(&mut said).await?;
            match post(serde_json::from_slice(&said).unwrap_or_default()).await {
                Ok(()) => ("200 OK", "text/plain", "seen".to_owned()),
                Err(why) => ("409 Conflict", "text/plain", why),
            }
        }
        _ => ("404 Not Found", "text/plain", "there are / and /board".to_owned()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {form}\r\nContent-Length: {}",
        body.len()
    );
    writer
        .write_all(format!("{head}\r\n{HEADERS}\r\n\r\n{body}").as_bytes())
        .await
}
