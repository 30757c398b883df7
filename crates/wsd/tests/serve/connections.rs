//! Connections of clients that send too much, leave early or stay too long.

use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use wsd::serve::Keys;

use super::support::{self, Server, settings};

/// Writes a whole request before it reads, as most clients do, and returns the answer.
async fn write_then_read(address: std::net::SocketAddr, head: &str, body: usize) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("{head}Content-Length: {body}\r\n\r\n").as_bytes()).await.unwrap();
    let chunk = vec![b' '; 64 << 10];
    let mut left = body;
    while left > 0 {
        let part = left.min(chunk.len());
        stream.write_all(&chunk[..part]).await.unwrap_or_else(|error| panic!("{left} bytes left: {error}"));
        left -= part;
    }
    support::read_to_end(&mut stream).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_arrives_whatever_the_client_still_sends() {
    let server = Server::new(settings(json!({})), Keys::new(["key"]));
    let address = server.listen().await;
    let post = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n";
    let json = "Content-Type: application/json\r\n";
    let key = "Authorization: Bearer key\r\n";
    for (head, bytes, status) in [
        (format!("{post}{json}"), 32 << 20, "401"),
        (format!("{post}{json}{key}"), 3 << 20, "413"),
        (format!("{post}Content-Type: text/plain\r\n{key}"), 100 << 10, "415"),
        (format!("POST /nowhere HTTP/1.1\r\nHost: localhost\r\n{key}"), 1 << 20, "404"),
    ] {
        let answer = write_then_read(address, &head, bytes).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{status}: {answer}");
        assert!(answer.to_ascii_lowercase().contains("connection: close"), "{answer}");
    }
}

#[tokio::test]
async fn a_client_that_has_closed_its_side_gets_a_quick_answer_and_frees_a_slow_one() {
    let server = Server::slow(json!({}));
    let address = server.listen().await;
    let mut quick = support::connect(address, "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    quick.shutdown().await.unwrap();
    assert!(support::read_to_end(&mut quick).await.starts_with("HTTP/1.1 200"));
    for stream in [true, false] {
        let endless = json!({"prompt": "ab", "max_tokens": 100_000, "stream": stream});
        let mut slow = support::open(address, "/v1/completions", &endless).await;
        server.until(|metrics| metrics.contains("vllm:num_requests_running{} 1")).await;
        slow.shutdown().await.unwrap();
        server.idle().await;
    }
}

#[tokio::test]
async fn a_cut_off_answer_says_so_and_is_counted() {
    let server = Server::slow(json!({"drain_timeout_seconds": 1}));
    let (address, stop) = server.listen_until_stopped().await;
    let endless = |stream: bool| json!({"prompt": "ab", "max_tokens": 100_000, "stream": stream});
    let mut streamed = support::open(address, "/v1/completions", &endless(true)).await;
    let mut whole = support::open(address, "/v1/completions", &endless(false)).await;
    server.until(|metrics| metrics.contains("vllm:num_requests_running{} 2")).await;
    let ended = stop();
    let (streamed, whole) = (support::read_to_end(&mut streamed).await, support::read_to_end(&mut whole).await);
    assert!(streamed.contains("server_stopped") && !streamed.contains("[DONE]"), "{streamed}");
    assert!(whole.starts_with("HTTP/1.1 503") && whole.contains("server_stopped"), "{whole}");
    assert_eq!(tokio::time::timeout(support::PATIENCE, ended).await.unwrap().unwrap(), 2);
}

#[tokio::test]
async fn another_name_in_the_request_is_refused_wherever_it_stands() {
    let address = Server::builtin().listen().await;
    for request in [
        "GET http://evil.example/v1/models HTTP/1.1\r\nHost: localhost\r\n",
        "GET /v1/models HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n",
        "GET /v1/models HTTP/1.1\r\nHost: [::1]evil.example\r\n",
        "GET /v1/models HTTP/1.1\r\nHost: localhost@evil.example\r\n",
    ] {
        let mut stream = support::connect(address, &format!("{request}Connection: close\r\n\r\n")).await;
        let answer = support::read_to_end(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 40"), "{request}: {answer}");
    }
}

/// A program that may have few files open, clients that hold them all, and one that does not read
/// its long stream.
#[tokio::test]
#[cfg(target_os = "linux")]
async fn without_descriptors_a_draining_server_waits_and_ends() {
    use std::process::{Command, Stdio};
    use std::time::Duration;
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let script = format!(
        "ulimit -n 40; exec \"$0\" serve --offline --quiet --port {port} --drain-timeout-seconds 2 --max-concurrent 4"
    );
    let mut command = Command::new("sh");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_wsd")]).stdout(Stdio::null()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let id = child.id().to_string();
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let started = async {
        while TcpStream::connect(address).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(support::PATIENCE, started).await.unwrap();
    let ids: Vec<u32> = (10..500).collect();
    let prompts = vec![ids; 8];
    let long = json!({
        "model": "base", "prompt": prompts, "n": 16, "max_tokens": 1, "echo": true, "logprobs": 5, "stream": true,
    });
    let mut stalled = support::open(address, "/v1/completions", &long).await;
    assert!(support::read_some(&mut stalled).await.starts_with("HTTP/1.1 200"));
    let mut held = Vec::new();
    for _ in 0..60 {
        held.push(support::connect(address, "GET /hea").await);
    }
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    tokio::time::sleep(Duration::from_millis(200)).await;
    let ticks = || {
        let stat = fs_err::read_to_string(format!("/proc/{id}/stat")).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_ascii_whitespace().collect();
        // User and system time, fields 14 and 15 of proc(5); the fields here begin with the third.
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let before = ticks();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let used = ticks() - before;
    assert!(used < 60, "the server used {used} hundredths of one second");
    drop((held, stalled));
    let output = tokio::task::spawn_blocking(move || child.wait_with_output()).await.unwrap().unwrap();
    assert!(output.status.code().is_some(), "{output:?}");
}
