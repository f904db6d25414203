//! As much of HTTP as a browser needs for one page and one value that changes. Never here: gauges.
//! Invariant: only this machine can ask, and a page of another site cannot ask through its browser.

use std::time::Duration;

use serde_json::Value as Json;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

const HEADERS: &str = "Cache-Control: no-store\r\nConnection: close\r\nX-Content-Type-Options: nosniff\r\n\
    Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:";

/// Serves `page` at `/` and the newest board at `/board`; port 0 takes any that is free. Prints the address.
pub(crate) async fn serve(port: u16, page: &'static str, board: watch::Receiver<Json>) -> anyhow::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    println!("http://{}/", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        let answer = answer(stream, page, board.clone());
        tokio::spawn(tokio::time::timeout(Duration::from_secs(5), answer));
    }
}

pub(crate) async fn answer(mut stream: TcpStream, page: &str, board: watch::Receiver<Json>) -> std::io::Result<()> {
    let (reader, mut writer) = stream.split();
    let mut lines = BufReader::new(reader.take(16 << 10)).lines();
    let request = lines.next_line().await?.unwrap_or_default();
    // A name of this machine, or a name that somebody else made point here.
    let mut is_ours = false;
    while let Some(line) = lines.next_line().await?.filter(|line| !line.is_empty()) {
        let line = line.to_ascii_lowercase();
        is_ours |= ["host: 127.0.0.1:", "host: localhost:"]
            .iter()
            .any(|host| line.starts_with(host));
    }
    let (status, form, body) = match request.split(' ').take(2).collect::<Vec<_>>()[..] {
        _ if !is_ours => ("421 Misdirected Request", "text/plain", "ask 127.0.0.1".to_owned()),
        ["GET", "/"] => ("200 OK", "text/html; charset=utf-8", page.to_owned()),
        ["GET", "/board"] => ("200 OK", "application/json", board.borrow().to_string()),
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
