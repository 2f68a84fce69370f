//! An embedder over HTTP, for endpoints that speak as `OpenAI`'s `POST /embeddings` does.
//! Knows requests, answers and patience; knows nothing of what is done with the vectors.
//!
//! Texts go in batches. An answer of 429, of 500 and above, or none in time is tried again, a
//! bounded number of times, after the pause that `Retry-After` asks for or a growing one. No error
//! and no `Debug` shows the key.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use ureq::Agent;
use ureq::http::{HeaderMap, StatusCode};

use crate::clock::{Clock, Millis, Stopwatch};
use crate::codec::Json;
use crate::embed::Embedder;
use crate::error::{Error, Result};
use crate::vector::DIM_MAX;

/// The longest answer that is read: 64 MiB.
const ANSWER_LEN_MAX: u64 = 64 << 20;
/// The longest name of an error that is shown.
const CODE_LEN_MAX: usize = 64;

/// What an endpoint answered instead of vectors.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// A status other than success, and what the endpoint calls the error.
    #[error("embeddings: HTTP status {status}{}{}", if code.is_empty() { "" } else { ", " }, code)]
    Status {
        /// The status of the last attempt.
        status: u16,
        /// `error.code` or `error.type` of the answer; empty when there is none.
        code: String,
    },
    /// The answer is not what the endpoint should answer.
    #[error("embeddings: {0}")]
    Answer(String),
    /// No answer came.
    #[error("embeddings: {0}")]
    Transport(String),
}

/// How an [`HttpEmbedder`] asks. See [`HttpEmbedder::builder`].
#[derive(Clone)]
pub struct HttpEmbedderBuilder {
    base_url: String,
    model: String,
    dim: usize,
    key: Option<String>,
    timeout: Duration,
    attempts: u32,
    batch: usize,
    pause: Duration,
    pause_max: Duration,
    send_dim: bool,
}

impl HttpEmbedderBuilder {
    /// Sends this key as a bearer token.
    #[must_use]
    pub fn key(mut self, key: &str) -> Self {
        self.key = Some(key.to_owned());
        self
    }

    /// How long one request may take; 30 s unless set.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How often a batch is tried, at least once; 5 unless set.
    #[must_use]
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts.max(1);
        self
    }

    /// Texts of one request, at least one; 256 unless set.
    #[must_use]
    pub fn batch(mut self, texts: usize) -> Self {
        self.batch = texts.max(1);
        self
    }

    /// The first pause between attempts, doubled each time, and the longest; 250 ms and 60 s
    /// unless set. When the endpoint asks for a longer one, the call ends with its error.
    #[must_use]
    pub fn pauses(mut self, first: Duration, longest: Duration) -> Self {
        (self.pause, self.pause_max) = (first, longest);
        self
    }

    /// Asks the endpoint for vectors of this dimension; not every model takes that.
    #[must_use]
    pub fn send_dimensions(mut self) -> Self {
        self.send_dim = true;
        self
    }

    /// The embedder.
    ///
    /// Errors: [`Error::Invalid`] for a URL that is neither `http` nor `https`, a key that no
    /// header can carry, an empty model or a dimension of 0; [`Error::Limit`] above [`DIM_MAX`].
    pub fn build(self) -> Result<HttpEmbedder> {
        Error::check_limit("dimension of a vector", self.dim, DIM_MAX)?;
        if self.dim == 0 || self.model.is_empty() {
            return Err(Error::Invalid("an embedder without model or dimension"));
        }
        if !["http://", "https://"].iter().any(|scheme| self.base_url.starts_with(scheme)) {
            return Err(Error::Invalid("a base URL that begins with neither http:// nor https://"));
        }
        let key = self.key.as_deref().unwrap_or("");
        if !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Error::Invalid("a key that no header can carry"));
        }
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_global(Some(self.timeout))
            .build();
        let url = format!("{}/embeddings", self.base_url.trim_end_matches('/'));
        Ok(HttpEmbedder { agent: config.new_agent(), url, options: self })
    }
}

/// An embedder that asks an OpenAI-compatible endpoint. Put a
/// [`CachedEmbedder`](crate::embed::CachedEmbedder) over it, so that no text is paid for twice.
///
/// ```no_run
/// use terrace_memory::embed::{Embedder, HttpEmbedder};
///
/// let url = "https://api.openai.com/v1";
/// let embedder = HttpEmbedder::builder(url, "text-embedding-3-small", 1536)
///     .key(&std::env::var("OPENAI_API_KEY")?)
///     .build()?;
/// assert_eq!(embedder.embed(&["What is a tier?"])?[0].len(), 1536);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "EmbeddingService")]
#[derive(Clone)]
pub struct HttpEmbedder {
    agent: Agent,
    url: String,
    options: HttpEmbedderBuilder,
}

impl fmt::Debug for HttpEmbedder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let HttpEmbedderBuilder { model, dim, .. } = &self.options;
        f.debug_struct("HttpEmbedder")
            .field("model", model)
            .field("dim", dim)
            .finish_non_exhaustive()
    }
}

#[derive(Serialize)]
struct Request<'r> {
    model: &'r str,
    input: &'r [&'r str],
    encoding_format: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    dimensions: Option<usize>,
}

#[derive(Deserialize)]
struct Answer {
    data: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    index: usize,
    embedding: Vec<f32>,
}

/// What one attempt came to.
enum Attempt {
    Done(Vec<Vec<f32>>),
    /// May go well another time, after the pause that was asked for.
    Again(Error, Option<Duration>),
}

impl HttpEmbedder {
    /// An embedder for this model, whose vectors have so many components, at
    /// `base_url/embeddings`.
    pub fn builder(base_url: &str, model: &str, dim: usize) -> HttpEmbedderBuilder {
        HttpEmbedderBuilder {
            base_url: base_url.to_owned(),
            model: model.to_owned(),
            dim,
            key: None,
            timeout: Duration::from_secs(30),
            attempts: 5,
            batch: 256,
            pause: Duration::from_millis(250),
            pause_max: Duration::from_mins(1),
            send_dim: false,
        }
    }

    fn batch(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>> {
        let HttpEmbedderBuilder { attempts, pause_max, .. } = self.options;
        let mut pause = self.options.pause;
        for attempt in 1.. {
            let (error, asked) = match self.attempt(texts)? {
                Attempt::Done(vectors) => return Ok(vectors),
                Attempt::Again(error, asked) => (error, asked),
            };
            let wait = asked.unwrap_or(pause.min(pause_max));
            if attempt >= attempts || wait > pause_max {
                return Err(error);
            }
            let watch = Stopwatch::start(wait);
            while let Some(left) = watch.left() {
                std::thread::park_timeout(left);
            }
            pause = pause.saturating_mul(2);
        }
        Err(Error::Timeout)
    }

    fn attempt(&self, texts: &[&str]) -> Result<Attempt> {
        let HttpEmbedderBuilder { model, dim, send_dim, key, .. } = &self.options;
        let dimensions = send_dim.then_some(*dim);
        let body = Request { model, input: texts, encoding_format: "float", dimensions };
        let body = serde_json::to_vec(&body).map_err(|error| Error::Codec(error.to_string()))?;
        let mut request = self.agent.post(&self.url).header("content-type", "application/json");
        if let Some(key) = key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let mut response = match request.send(&body[..]) {
            Ok(response) => response,
            Err(error) => return self.failed(error),
        };
        let (status, asked) = (response.status(), retry_after(response.headers()));
        let body = response.body_mut().with_config().limit(ANSWER_LEN_MAX).read_to_vec();
        let body = match body {
            Ok(body) => body,
            Err(error) => return self.failed(error),
        };
        if status.is_success() {
            return self.read(&body, texts.len()).map(Attempt::Done);
        }
        let error = Error::backend(self.refused(status, &body));
        if status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() {
            return Ok(Attempt::Again(error, asked));
        }
        Err(error)
    }

    /// No answer: what may go well another time, and what never will.
    fn failed(&self, error: ureq::Error) -> Result<Attempt> {
        let text = |error: &ureq::Error| Error::backend(HttpError::Transport(self.shown(error)));
        match error {
            ureq::Error::Timeout(_) => Ok(Attempt::Again(Error::Timeout, None)),
            ureq::Error::Io(error) => Ok(Attempt::Again(Error::Io(error), None)),
            ureq::Error::ConnectionFailed | ureq::Error::Protocol(_) => {
                Ok(Attempt::Again(text(&error), None))
            }
            ureq::Error::BadUri(_) => {
                Err(Error::backend(HttpError::Transport("the base URL is no URL".to_owned())))
            }
            error => Err(text(&error)),
        }
    }

    /// A text without the key, whoever put it there.
    fn shown(&self, text: impl fmt::Display) -> String {
        let text = text.to_string();
        match self.options.key.as_deref() {
            Some(key) if !key.is_empty() => text.replace(key, "[key]"),
            _ => text,
        }
    }

    /// The name of the error in the answer. Its message is left out: it may quote what was sent.
    fn refused(&self, status: StatusCode, body: &[u8]) -> HttpError {
        let answer: Json = serde_json::from_slice(body).unwrap_or(Json::Null);
        let named = |field: &str| answer.get("error")?.get(field)?.as_str();
        let code = named("code").or_else(|| named("type")).unwrap_or("");
        let plain = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        let code = self.shown(code);
        let code = code.chars().filter(plain).take(CODE_LEN_MAX).collect();
        HttpError::Status { status: status.as_u16(), code }
    }

    fn read(&self, body: &[u8], count: usize) -> Result<Vec<Vec<f32>>> {
        let refused = |text: String| Error::backend(HttpError::Answer(text));
        let answer: Answer = serde_json::from_slice(body).map_err(|error| {
            refused(format!(
                "not what was asked for, at line {} column {}",
                error.line(),
                error.column()
            ))
        })?;
        let mut vectors: Vec<Option<Vec<f32>>> = vec![None; count];
        for Item { index, embedding } in answer.data {
            if embedding.len() != self.options.dim {
                let (expected, got) = (self.options.dim, embedding.len());
                return Err(Error::Dimension { expected, got });
            }
            if !embedding.iter().all(|part| part.is_finite()) {
                return Err(Error::InvalidVector("a component that is not finite"));
            }
            let place = vectors.get_mut(index).filter(|place| place.is_none());
            let wrong = || refused(format!("vector {index} of {count}, or twice"));
            *place.ok_or_else(wrong)? = Some(embedding);
        }
        let found = vectors.iter().flatten().count();
        if found < count {
            return Err(refused(format!("{found} vectors for {count} texts")));
        }
        Ok(vectors.into_iter().flatten().collect())
    }
}

/// The pause that an answer asks for: seconds, or a moment (RFC 9110, section 10.2.3).
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let asked = headers.get("retry-after")?.to_str().ok()?.trim();
    if let Ok(seconds) = asked.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let moment = jiff::fmt::rfc2822::parse(asked).ok()?.timestamp().as_millisecond();
    let moment = Millis(u64::try_from(moment).unwrap_or(0));
    Some(moment.since(Clock::system().now()))
}

impl Embedder for HttpEmbedder {
    fn dim(&self) -> usize {
        self.options.dim
    }

    fn model(&self) -> &str {
        &self.options.model
    }

    fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>> {
        let mut vectors = Vec::with_capacity(texts.len());
        for texts in texts.chunks(self.options.batch) {
            vectors.extend(self.batch(texts)?);
        }
        Ok(vectors)
    }
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
