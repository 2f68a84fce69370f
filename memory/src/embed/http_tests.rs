//! The embedder against a real server on loopback that answers as it is told.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::json;

use super::*;
use crate::embed::CachedEmbedder;
use crate::store::{MemStore, Ttl};

const KEY: &str = "sk-very-secret";

/// An answer: status line, header lines, body. An empty one closes the connection.
type Scripted = (&'static str, &'static str, String);

fn request(stream: &TcpStream) -> (String, Json) {
    let mut reader = BufReader::new(stream);
    let (mut head, mut len) = (String::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            len = value.trim().parse().unwrap();
        }
        if line.trim().is_empty() {
            break;
        }
        head += &line;
    }
    let mut body = vec![0; len];
    reader.read_exact(&mut body).unwrap();
    (head, serde_json::from_slice(&body).unwrap())
}

/// Runs `client` against a server that gives these answers, one a connection; what it was asked.
fn serve<R: Send>(
    script: Vec<Scripted>,
    client: impl FnOnce(&str) -> R + Send,
) -> (R, Vec<(String, Json)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1/", listener.local_addr().unwrap());
    let asked = Mutex::new(Vec::new());
    let result = std::thread::scope(|scope| {
        scope.spawn(|| {
            for (status, headers, body) in script {
                let (mut stream, _) = listener.accept().unwrap();
                asked.lock().push(request(&stream));
                if status.is_empty() {
                    continue;
                }
                let len = body.len();
                let head = format!("HTTP/1.1 {status}\r\nconnection: close\r\n{headers}");
                write!(stream, "{head}content-length: {len}\r\n\r\n{body}").unwrap();
            }
        });
        client(&url)
    });
    (result, asked.into_inner())
}

fn vectors(items: &[(usize, [f32; 2])]) -> String {
    let data = items.iter().map(|(index, embedding)| {
        json!({ "object": "embedding", "index": index, "embedding": embedding })
    });
    json!({ "object": "list", "data": data.collect::<Vec<_>>() }).to_string()
}

fn embedder(url: &str) -> HttpEmbedderBuilder {
    let builder = HttpEmbedder::builder(url, "small", 2).key(KEY);
    builder.pauses(Duration::from_millis(1), Duration::from_secs(2))
}

fn good(items: &[(usize, [f32; 2])]) -> Scripted {
    ("200 OK", "", vectors(items))
}

fn failing(script: Vec<Scripted>) -> (Error, usize) {
    let run = |url: &str| embedder(url).attempts(3).build().unwrap().embed(&["a"]).unwrap_err();
    let (error, asked) = serve(script, run);
    let text = format!("{error} {error:?}");
    assert!(!text.contains("secret"), "{text}");
    (error, asked.len())
}

#[test]
fn texts_go_in_batches_and_come_back_in_their_order() {
    let script = vec![good(&[(1, [0.0, 1.0]), (0, [1.0, 0.0])]), good(&[(0, [0.5, 0.5])])];
    let (vectors, asked) = serve(script, |url| {
        let embedder = embedder(url).batch(2).send_dimensions().build().unwrap();
        assert!(!format!("{embedder:?}").contains("secret"));
        embedder.embed(&["a", "b", "c"]).unwrap()
    });
    assert_eq!(vectors, [[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]]);
    let (head, body) = &asked[0];
    assert!(head.starts_with("POST /v1/embeddings "), "{head}");
    assert!(head.contains(&format!("Bearer {KEY}")), "{head}");
    assert_eq!((&body["model"], &body["input"]), (&json!("small"), &json!(["a", "b"])));
    assert_eq!((&body["dimensions"], &asked[1].1["input"]), (&json!(2), &json!(["c"])));
}

#[test]
fn a_busy_or_broken_server_is_asked_again_so_often_and_no_more() {
    let busy = || ("429 Too Many Requests", "retry-after: 0\r\n", String::new());
    let broken = || ("503 Service Unavailable", "", "<html>".to_owned());
    let lost = || ("", "", String::new());
    let script = vec![busy(), broken(), lost(), good(&[(0, [1.0, 2.0])])];
    let run = |url: &str| embedder(url).build().unwrap().embed(&["a"]).unwrap();
    let (vectors, asked) = serve(script, run);
    assert_eq!((vectors, asked.len()), (vec![vec![1.0, 2.0]], 4));

    let (error, asked) = failing(vec![busy(), busy(), busy()]);
    assert_eq!((error.to_string().as_str(), asked), ("embeddings: HTTP status 429", 3));
    let later = ("429 Too Many Requests", "retry-after: 3600\r\n", String::new());
    assert_eq!(failing(vec![later]).1, 1, "an hour is more than the caller waits");
    let (error, asked) = failing(vec![lost(), lost(), lost()]);
    assert!(matches!(error, Error::Io(_) | Error::Backend(_)) && asked == 3, "{error}");
}

#[test]
fn a_refusal_is_not_repeated_and_says_its_name_and_no_key() {
    let message = format!("Incorrect API key provided: {KEY}");
    let body = json!({ "error": { "message": message, "code": "invalid_api_key" } }).to_string();
    let (error, asked) = failing(vec![("401 Unauthorized", "", body)]);
    assert_eq!(error.to_string(), "embeddings: HTTP status 401, invalid_api_key");
    assert_eq!(asked, 1);
    let body = json!({ "error": { "type": format!("bad {KEY} key") } }).to_string();
    let (error, _) = failing(vec![("400 Bad Request", "", body)]);
    assert_eq!(error.to_string(), "embeddings: HTTP status 400, badkeykey");
    let moved = ("307 Temporary Redirect", "location: http://127.0.0.1:1/\r\n", String::new());
    assert!(matches!(failing(vec![moved]).0, Error::Backend(_)), "keys follow no redirect");
}

#[test]
fn an_answer_that_is_not_what_was_asked_for_is_an_error() {
    let answers = [
        "no JSON".to_owned(),
        "{}".to_owned(),
        vectors(&[]),
        vectors(&[(0, [1.0, 0.0]), (0, [1.0, 0.0])]),
        vectors(&[(1, [1.0, 0.0])]),
        json!({ "data": [{ "index": 0, "embedding": ["x", null] }] }).to_string(),
    ];
    for body in answers {
        let (error, asked) = failing(vec![("200 OK", "", body)]);
        assert!(matches!(error, Error::Backend(_)), "{error}");
        assert_eq!(asked, 1);
    }
    let long = json!({ "data": [{ "index": 0, "embedding": [1, 2, 3] }] }).to_string();
    let (error, _) = failing(vec![("200 OK", "", long)]);
    assert!(matches!(error, Error::Dimension { expected: 2, got: 3 }));
    let wild = r#"{"data":[{"index":0,"embedding":[1e39,0]}]}"#.to_owned();
    let (error, _) = failing(vec![("200 OK", "", wild)]);
    assert!(matches!(error, Error::InvalidVector(_) | Error::Backend(_)), "{error}");
}

#[test]
fn a_server_that_does_not_answer_is_a_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let slow = embedder(&url).timeout(Duration::from_millis(50)).attempts(2).build().unwrap();
    assert!(matches!(slow.embed(&["a"]), Err(Error::Timeout)));
}

#[test]
fn what_cannot_be_asked_is_refused_when_it_is_built() {
    let build = |url: &str, model: &str, dim| HttpEmbedder::builder(url, model, dim);
    assert!(matches!(build("ftp://x", "m", 2).build(), Err(Error::Invalid(_))));
    assert!(matches!(build("http://x", "", 2).build(), Err(Error::Invalid(_))));
    assert!(matches!(build("http://x", "m", 0).build(), Err(Error::Invalid(_))));
    assert!(matches!(build("http://x", "m", 1 << 20).build(), Err(Error::Limit { .. })));
    assert!(matches!(build("http://x", "m", 2).key("a\nb").build(), Err(Error::Invalid(_))));
    let bad = build("http://a b", "m", 2).key(KEY).attempts(1).build().unwrap();
    let error = bad.embed(&["a"]).unwrap_err();
    assert!(matches!(error, Error::Backend(_)) && !error.to_string().contains("secret"), "{error}");
}

#[test]
fn a_cache_over_it_asks_once_for_a_text() {
    let script = vec![good(&[(0, [3.0, 4.0])])];
    let ((), asked) = serve(script, |url| {
        let inner = embedder(url).build().unwrap();
        let cached = CachedEmbedder::new(inner, Arc::new(MemStore::new()), Ttl::Never).unwrap();
        for _ in 0..3 {
            assert_eq!(cached.embed(&["a", "a"]).unwrap(), [[3.0, 4.0], [3.0, 4.0]]);
        }
    });
    assert_eq!(asked[0].1["input"], json!(["a"]));
}

#[test]
fn the_pause_that_was_asked_for_is_seconds_or_a_moment() {
    let pause = |value: &str| {
        let mut headers = HeaderMap::new();
        headers.insert("retry-after", value.parse().unwrap());
        retry_after(&headers)
    };
    assert_eq!(pause("7"), Some(Duration::from_secs(7)));
    assert_eq!(pause("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
    assert!(pause("Thu, 06 Nov 2994 08:49:37 GMT").unwrap() > Duration::from_hours(1));
    assert_eq!(pause("soon"), None);
}
