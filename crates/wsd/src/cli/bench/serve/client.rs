//! A client of the server's, as frugal as one can be on the same machine.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response, header};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpStream;
use wsd::config::Settings;

use super::Asks;
use super::load::Sample;

/// A running server, and what it is asked.
pub(super) struct Server {
    asks: Asks,
    model: &'static str,
    max_tokens: usize,
    key: Option<String>,
}

/// A connection that is kept from request to request.
pub(super) struct Connection(SendRequest<Full<Bytes>>);

impl Server {
    pub(super) fn new(asks: &Asks, settings: &Settings) -> Self {
        let key = std::env::var("WSD_API_KEY").ok().or_else(|| settings.serve.keys.key.clone());
        Self { asks: asks.clone(), model: settings.recipe.name, max_tokens: settings.max_tokens, key }
    }

    /// Ask once and read the answer to its end.
    pub(super) async fn ask(&self, connection: &mut Option<Connection>, index: usize) -> Result<Sample> {
        let mut body = json!({
            "model": self.model, "max_tokens": self.max_tokens,
            "messages": [{"role": "user", "content": self.asks.prompt(index)}],
        });
        if !self.asks.whole {
            body["stream"] = json!(true);
            body["stream_options"] = json!({"include_usage": true});
        }
        let body = Bytes::from(body.to_string());
        let started = Instant::now();
        let response = self.send(connection, "POST", "/v1/chat/completions", body).await?;
        let status = response.status().as_u16();
        let mut reading = Reading::default();
        let mut body = response.into_body();
        while let Some(frame) = body.frame().await {
            if let Some(data) = frame?.data_ref() {
                reading.read(data);
            }
        }
        let streamed = status == 200 && !self.asks.whole;
        Ok(Sample {
            status,
            first_token: reading.first.filter(|_| streamed).map(|at| at - started),
            pause: reading.pause.filter(|_| streamed),
            whole: started.elapsed(),
            tokens: reading.tokens(),
        })
    }

    /// What the server's metrics say of it.
    pub(super) async fn processor_seconds(&self) -> Option<f64> {
        let response = self.send(&mut None, "GET", "/metrics", Bytes::new()).await.ok()?;
        let text = response.into_body().collect().await.ok()?.to_bytes();
        let text = std::str::from_utf8(&text).ok()?;
        text.lines().find_map(|line| line.strip_prefix("process_cpu_seconds_total ")?.parse().ok())
    }

    /// Send a request on the connection, or on a new one where there is none or it has been closed
    /// meanwhile.
    async fn send(
        &self,
        connection: &mut Option<Connection>,
        method: &str,
        path: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>> {
        if let Some(Connection(sender)) = connection
            && sender.ready().await.is_ok()
            && let Ok(response) = sender.send_request(self.request(method, path, body.clone())?).await
        {
            return Ok(response);
        }
        let server = &self.asks.server;
        let stream = TcpStream::connect(server).await.with_context(|| format!("cannot reach {server}"))?;
        stream.set_nodelay(true)?;
        let (mut sender, work) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(work);
        let response = sender.send_request(self.request(method, path, body)?).await?;
        *connection = Some(Connection(sender));
        Ok(response)
    }

    fn request(&self, method: &str, path: &str, body: Bytes) -> Result<Request<Full<Bytes>>> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, &self.asks.server)
            .header(header::CONTENT_TYPE, "application/json");
        let request = match &self.key {
            Some(key) => request.header(header::AUTHORIZATION, format!("Bearer {key}")),
            None => request,
        };
        Ok(request.body(Full::new(body))?)
    }
}

/// An answer being read.
#[derive(Default)]
struct Reading {
    text: Vec<u8>,
    events: usize,
    first: Option<Instant>,
    last: Option<Instant>,
    pause: Option<Duration>,
}

impl Reading {
    fn read(&mut self, data: &[u8]) {
        const EVENT: &[u8] = b"data: ";
        // An event's beginning may be divided between two reads.
        let from = (self.text.len() + 1).saturating_sub(EVENT.len());
        self.text.extend_from_slice(data);
        let events = self.text[from..].windows(EVENT.len()).filter(|bytes| *bytes == EVENT).count();
        if events == 0 {
            return;
        }
        self.events += events;
        // The first event says who speaks; the second holds the first text.
        let now = Instant::now();
        if let Some(last) = self.last.filter(|_| self.first.is_some()) {
            self.pause = self.pause.max(Some(now - last));
        } else if self.events > 1 {
            self.first = Some(now);
        }
        self.last = Some(now);
    }

    /// What the reply says of itself.
    fn tokens(&self) -> usize {
        let text = String::from_utf8_lossy(&self.text);
        let count = text
            .rsplit_once("\"completion_tokens\":")
            .and_then(|(_, rest)| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok());
        count.unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_counted_however_they_are_divided() {
        let text = b"data: {}\n\ndata: {}\n\n: keep-alive\n\ndata: {\"usage\":{\"completion_tokens\":12,\"x\":0}}\n\ndata: [DONE]\n\n";
        for size in 1..text.len() {
            let mut reading = Reading::default();
            text.chunks(size).for_each(|part| reading.read(part));
            assert_eq!((reading.events, reading.tokens()), (4, 12), "{size}");
        }
    }
}
