//! An HTTP client that uses little processor time, as it shares the server's machine.

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

use super::questions::Questions;
use super::sample::Sample;

/// A running server, and the requests for it.
pub(super) struct Server {
    questions: Questions,
    model: &'static str,
    max_tokens: usize,
    key: Option<String>,
}

/// A keep-alive connection.
pub(super) struct Connection(SendRequest<Full<Bytes>>);

impl Server {
    pub(super) fn new(questions: &Questions, settings: &Settings) -> Self {
        let key = std::env::var("WSD_API_KEY").ok().or_else(|| settings.serve.keys.key.clone());
        Self { questions: questions.clone(), model: settings.recipe.name, max_tokens: settings.max_tokens(), key }
    }

    /// Sends one request and reads the answer to its end.
    pub(super) async fn ask(&self, connection: &mut Option<Connection>, index: usize) -> Result<Sample> {
        let mut body = json!({
            "model": self.model, "max_tokens": self.max_tokens,
            "messages": [{"role": "user", "content": self.questions.prompt(index)}],
        });
        if !self.questions.whole {
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
        let streamed = status == 200 && !self.questions.whole;
        Ok(Sample {
            status,
            first_token: reading.first.filter(|_| streamed).map(|at| at - started),
            pause: reading.pause.filter(|_| streamed),
            whole: started.elapsed(),
            tokens: reading.tokens(),
        })
    }

    /// Processor time from the server's metrics.
    pub(super) async fn processor_seconds(&self) -> Option<f64> {
        let response = self.send(&mut None, "GET", "/metrics", Bytes::new()).await.ok()?;
        let text = response.into_body().collect().await.ok()?.to_bytes();
        let text = std::str::from_utf8(&text).ok()?;
        text.lines().find_map(|line| line.strip_prefix("process_cpu_seconds_total ")?.parse().ok())
    }

    /// Sends a request on the connection; opens a new one if there is none or the server closed it.
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
        let server = &self.questions.server;
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
            .header(header::HOST, &self.questions.server)
            .header(header::CONTENT_TYPE, "application/json");
        let request = match &self.key {
            Some(key) => request.header(header::AUTHORIZATION, format!("Bearer {key}")),
            None => request,
        };
        Ok(request.body(Full::new(body))?)
    }
}

/// The part of an answer read so far.
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
        // The start of an event may be split between two reads.
        let from = (self.text.len() + 1).saturating_sub(EVENT.len());
        self.text.extend_from_slice(data);
        let events = self.text[from..].windows(EVENT.len()).filter(|bytes| *bytes == EVENT).count();
        if events == 0 {
            return;
        }
        self.events += events;
        // The first event holds the role, the second the first text.
        let now = Instant::now();
        if let Some(last) = self.last.filter(|_| self.first.is_some()) {
            self.pause = self.pause.max(Some(now - last));
        } else if self.events > 1 {
            self.first = Some(now);
        }
        self.last = Some(now);
    }

    /// The token count in the reply's usage.
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
    fn events_are_counted_in_chunks_of_any_size() {
        let text = b"data: {}\n\ndata: {}\n\n: keep-alive\n\n\
            data: {\"usage\":{\"completion_tokens\":12,\"x\":0}}\n\ndata: [DONE]\n\n";
        for size in 1..text.len() {
            let mut reading = Reading::default();
            text.chunks(size).for_each(|part| reading.read(part));
            assert_eq!((reading.events, reading.tokens()), (4, 12), "{size}");
        }
    }
}
