//! Against a raw server on the loopback, in real time: what a well-behaved test server cannot do.

use std::io::Write;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use super::*;

fn settings(base: &str) -> Settings {
    Settings {
        base_url: Url::parse(base).unwrap(),
        credential: Credential::Fixed(SecretString::from("s3cret")),
        project_id: Some(7),
        project_slug: None,
        request_timeout: Duration::from_secs(5),
        body_bytes_max: 100_000,
        ca_file: None,
    }
}

/// Answers each connection with the same bytes and gives the requests' heads. Closes, or keeps the line open without a word.
async fn serve(answer: Vec<u8>, close: bool) -> (String, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}/api/v1/", listener.local_addr().unwrap());
    let (heads, received) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let Ok(byte) = stream.read_u8().await else { break };
                head.push(byte);
            }
            let _ = heads.send(String::from_utf8_lossy(&head).into_owned());
            let _ = stream.write_all(&answer).await;
            if !close {
                open.push(stream);
            }
        }
    });
    (base, received)
}

fn runs() -> Request {
    Request::get(
        "/runs",
        "/runs".to_owned(),
        vec![("since", "2026-11-22T00:00:00Z".to_owned())],
    )
}

async fn outcome(answer: impl Into<Vec<u8>>, close: bool) -> Result<Reply, TransportError> {
    let (base, _heads) = serve(answer.into(), close).await;
    let quick = Settings {
        request_timeout: Duration::from_secs(1),
        ..settings(&base)
    };
    HttpTransport::new(quick).unwrap().send(&runs()).await
}

fn gzipped(length: usize) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(&vec![b' '; length]).unwrap();
    let body = encoder.finish().unwrap();
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.into_bytes(), body].concat()
}

#[tokio::test]
async fn a_request_carries_the_token_and_the_base_path_and_names_us() {
    let (base, mut heads) = serve(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}".to_vec(), true).await;
    let reply = HttpTransport::new(settings(&base))
        .unwrap()
        .send(&runs())
        .await
        .unwrap();
    assert_eq!((reply.status, &reply.body[..]), (200, &b"{}"[..]));
    let head = heads.recv().await.unwrap().to_lowercase();
    assert!(
        head.starts_with("get /api/v1/runs?since=2026-11-22t00%3a00%3a00z http/1.1"),
        "{head}"
    );
    for line in [
        "authorization: bearer s3cret",
        "x-project-id: 7",
        "accept: application/json",
        "user-agent: testrun-exporter/",
    ] {
        assert!(head.contains(line), "{line} in {head}");
    }
    assert!(!head.contains("referer"));
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_the_token_goes_nowhere_else() {
    let (elsewhere, mut visits) = serve(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_vec(), true).await;
    let answer = format!("HTTP/1.1 302 Found\r\nlocation: {elsewhere}\r\ncontent-length: 0\r\n\r\n");
    assert_eq!(outcome(answer, true).await.unwrap().status, 302);
    assert!(visits.try_recv().is_err(), "nobody came");
}

#[tokio::test]
async fn broken_answers_are_told_apart_without_upstreams_words() {
    let check = async |answer: Vec<u8>, close: bool, expected: &str| {
        let error = outcome(answer.clone(), close).await.unwrap_err();
        let text = format!("{error:?}");
        assert!(text.starts_with(expected), "{text}, not {expected}");
        assert!(!text.contains("127.0.0.1") && !text.contains("s3cret"), "{text}");
    };
    check(
        b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n{}".to_vec(),
        true,
        "Connection",
    )
    .await;
    check(
        b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n{}".to_vec(),
        false,
        "Timeout",
    )
    .await;
    check(b"".to_vec(), true, "Connection").await;
    check(b"".to_vec(), false, "Timeout").await;
    check(b"SSH-2.0-OpenSSH_9.9\r\n\r\n".to_vec(), true, "Encoding").await;
    check(
        b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n".to_vec(),
        true,
        "TooLarge",
    )
    .await;
    check(gzipped(10_000_000), true, "TooLarge").await;
    let garbage = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 9\r\n\r\nnot gzip!".to_vec();
    check(garbage, true, "Encoding").await;
}

#[tokio::test]
async fn gzip_within_the_bound_is_read() {
    assert_eq!(outcome(gzipped(90_000), true).await.unwrap().body.len(), 90_000);
}

#[tokio::test]
async fn a_refusals_status_and_headers_survive_a_broken_page() {
    let answer = "HTTP/1.1 429 Too Many Requests\r\nretry-after: 9\r\ncontent-length: 50\r\n\r\nslow";
    let reply = outcome(answer, true).await.unwrap();
    assert_eq!(
        (reply.status, reply.headers["retry-after"].to_str().unwrap()),
        (429, "9")
    );
}

#[tokio::test]
async fn nobody_listening_is_a_refused_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = HttpTransport::new(settings(&base))
        .unwrap()
        .send(&runs())
        .await
        .unwrap_err();
    assert_eq!(
        error,
        TransportError::Connection("the connection was refused".to_owned())
    );
}

#[tokio::test]
async fn a_token_file_is_read_for_every_request_and_never_shown() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token");
    let (base, mut heads) = serve(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_vec(), true).await;
    let transport = HttpTransport::new(Settings {
        credential: Credential::File(path.clone()),
        ..settings(&base)
    })
    .unwrap();
    assert_eq!(transport.credential_version().await, NO_CREDENTIAL);
    let mut versions = vec![NO_CREDENTIAL];
    for (content, expected) in [("one\n", "bearer one\r\n"), ("two\r\n", "bearer two\r\n")] {
        std::fs::write(&path, content).unwrap();
        transport.send(&runs()).await.unwrap();
        assert!(heads.recv().await.unwrap().to_lowercase().contains(expected));
        versions.push(transport.credential_version().await);
    }
    assert!(versions[0] != versions[1] && versions[1] != versions[2]);
    for content in ["", "\n", "two words", "one\ntwo\n", "caf\u{e9}"] {
        std::fs::write(&path, content).unwrap();
        let error = transport.send(&runs()).await.unwrap_err();
        let text = error.to_string();
        assert!(
            matches!(error, TransportError::Credential(_)) && text.contains(path.to_str().unwrap()),
            "{text}"
        );
        assert!(!text.contains("two words") && !text.contains("caf"), "{text}");
    }
    assert!(heads.try_recv().is_err(), "nothing was sent without a token");
}

#[test]
fn no_path_leads_out_of_the_base_url() {
    let base = Url::parse("https://host/api/v1/").unwrap();
    let check = |path: &str, expected: Option<&str>| {
        let url = address(&base, &Request::get("/x", path.to_owned(), Vec::new())).ok();
        assert_eq!(url.as_ref().map(Url::as_str), expected, "{path}");
    };
    check("/runs/7", Some("https://host/api/v1/runs/7"));
    check("/a b?c#d%2e/e", Some("https://host/api/v1/a%20b%3Fc%23d%252e/e"));
    check("/%2e%2e/x", Some("https://host/api/v1/%252e%252e/x"));
    for path in [
        "",
        "runs",
        "//evil/x",
        "/../x",
        "/a/../../x",
        "/./x",
        "/a//b",
        "/a/",
        "https://evil/",
        "/a\nb",
        "@evil/",
    ] {
        check(path, None);
    }
}

#[test]
fn a_base_url_with_secrets_and_a_bad_authority_file_are_refused() {
    for base in [
        "https://user:word@host/",
        "https://host/?q=1",
        "https://host/#f",
        "ftp://host/",
    ] {
        assert!(
            matches!(HttpTransport::new(settings(base)), Err(SetupError::BaseUrl)),
            "{base}"
        );
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    let with_file = Settings {
        ca_file: Some(file.path().to_owned()),
        ..settings("https://host/")
    };
    assert!(matches!(HttpTransport::new(with_file), Err(SetupError::CaFile { .. })));
}
