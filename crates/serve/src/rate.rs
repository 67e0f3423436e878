//! A limit for each key: requests a minute, and tokens a minute.
//!
//! Two buckets a key, each as large as a minute's limit, which fill evenly. A request takes one from the first. Before its
//! texts are handed on, what they may become is taken from the second: tokens of prompts, and as many as they may have in all. What
//! was not written is given back at the end. So many requests at once cannot have more than one after the other. A desk's job, whose
//! length is not known before, needs a token to begin, and takes the rest as it goes on, from below zero where there is no more.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::error::ApiError;
use crate::keys::Key;

/// What may be asked for in a minute; without a limit, anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Requests that are work; what only looks something up does not count.
    pub requests: Option<u32>,
    /// Tokens of prompts, and tokens that are written.
    pub tokens: Option<u32>,
}

/// What a limit is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum What {
    /// Requests.
    Requests,
    /// Tokens.
    Tokens,
}

impl What {
    /// The name, as in headers, errors and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            What::Requests => "requests",
            What::Tokens => "tokens",
        }
    }
}

/// A limit that would be passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied {
    /// Which limit.
    pub what: What,
    /// How many it allows in a minute.
    pub limit: u32,
    /// How many are asked for.
    pub asked: u64,
    /// After which time it would be allowed.
    pub wait: Duration,
    /// Whose it is.
    pub key: String,
}

impl From<Denied> for ApiError {
    fn from(Denied { what, limit, asked, wait, key }: Denied) -> ApiError {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        let what = what.as_str();
        // One token is the least, of a request whose length is not known before: nothing smaller helps.
        let asked = match what {
            "tokens" if asked > 1 => {
                format!("; this request may have {asked}, prompt and answer, so a smaller `max_tokens` helps")
            }
            _ => String::new(),
        };
        let message =
            format!("the key `{key}` has {limit} {what} a minute{asked}; try again after {seconds} s");
        let error = ApiError::new(StatusCode::TOO_MANY_REQUESTS, what, message);
        ApiError { retry_after: Some(seconds.max(1)), ..error.code("rate_limit_exceeded") }
    }
}

/// How full a bucket was at a time. Below zero where more was used than was known before.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    level: f64,
    at: Instant,
}

impl Bucket {
    /// The level now.
    fn fill(&mut self, limit: u32, now: Instant) -> &mut f64 {
        let (limit, seconds) = (f64::from(limit), now.saturating_duration_since(self.at).as_secs_f64());
        self.level = (self.level + seconds * limit / 60.0).min(limit);
        self.at = self.at.max(now);
        &mut self.level
    }

    /// Takes so much, or says how long to wait for it.
    fn take(&mut self, limit: u32, amount: f64, now: Instant) -> Result<(), Duration> {
        let level = self.fill(limit, now);
        if *level < amount {
            return Err(until(amount - *level, limit));
        }
        *level -= amount;
        Ok(())
    }
}

/// How long it takes until so much has come.
fn until(amount: f64, limit: u32) -> Duration {
    Duration::from_secs_f64(amount.max(0.0) * 60.0 / f64::from(limit.max(1)))
}

/// The buckets of all keys, by name, so that they outlive a reading of the keys' file.
#[derive(Debug, Default)]
pub struct Rates {
    buckets: Mutex<HashMap<(String, What), Bucket>>,
}

impl Rates {
    /// Takes a request, if it is work.
    pub fn ask(&self, key: &Key, is_work: bool) -> Result<(), Denied> {
        self.take(key, What::Requests, u64::from(is_work), Instant::now()).map(drop)
    }

    /// Takes the tokens that a request may have, and gives how many were taken: a bucket never holds more than its limit.
    pub fn reserve(&self, key: &Key, tokens: u64) -> Result<u64, Denied> {
        self.take(key, What::Tokens, tokens, Instant::now())
    }

    fn take(&self, key: &Key, what: What, asked: u64, now: Instant) -> Result<u64, Denied> {
        let Some(limit) = limit(key, what) else { return Ok(0) };
        let amount = asked.min(u64::from(limit));
        let taken = bucket(&mut self.lock(), key, what, now).take(limit, amount as f64, now);
        taken.map(|()| amount).map_err(|wait| Denied { what, limit, asked, wait, key: key.name.clone() })
    }

    /// Gives back what was taken and not used, or takes what was used beyond it.
    pub fn settle(&self, key: &Key, taken: u64, used: u64) {
        let now = Instant::now();
        if let Some(limit) = limit(key, What::Tokens) {
            let mut buckets = self.lock();
            let level = bucket(&mut buckets, key, What::Tokens, now).fill(limit, now);
            *level = (*level + taken as f64 - used as f64).min(f64::from(limit));
        }
    }

    /// Tells how a key stands, in the headers that OpenAI's clients know.
    pub(crate) fn tell(&self, key: &Key, headers: &mut HeaderMap) {
        let (now, mut buckets) = (Instant::now(), self.lock());
        for (what, names) in [(What::Requests, HEADERS[0]), (What::Tokens, HEADERS[1])] {
            let Some(limit) = limit(key, what) else { continue };
            let level = *bucket(&mut buckets, key, what, now).fill(limit, now);
            let reset = until(f64::from(limit) - level, limit);
            let [name, remaining, time] = names.map(HeaderName::from_static);
            headers.insert(name, HeaderValue::from(limit));
            headers.insert(remaining, HeaderValue::from(level.max(0.0) as u64));
            if let Ok(value) = HeaderValue::from_str(&short(reset)) {
                headers.insert(time, value);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(String, What), Bucket>> {
        // Each change is one number, which a panic does not halve.
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const HEADERS: [[&str; 3]; 2] = [
    ["x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"],
    ["x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"],
];

fn limit(key: &Key, what: What) -> Option<u32> {
    match what {
        What::Requests => key.limits.requests,
        What::Tokens => key.limits.tokens,
    }
}

/// A key's bucket, which is full at first.
fn bucket<'b>(
    buckets: &'b mut HashMap<(String, What), Bucket>,
    key: &Key,
    what: What,
    now: Instant,
) -> &'b mut Bucket {
    let full = || Bucket { level: limit(key, what).map_or(0.0, f64::from), at: now };
    buckets.entry((key.name.clone(), what)).or_insert_with(full)
}

/// A time as OpenAI writes it: `1m30s`, `2s`, `120ms`.
fn short(time: Duration) -> String {
    match time.as_millis() {
        millis @ 0..1000 => format!("{millis}ms"),
        millis => match millis.div_ceil(1000) {
            seconds @ 0..60 => format!("{seconds}s"),
            seconds => format!("{}m{}s", seconds / 60, seconds % 60),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::Keys;

    fn key(limits: &str) -> std::sync::Arc<Key> {
        let secret = "a-key-of-more-than-20-characters";
        let keys = Keys::parse(&format!("k: {secret} {limits}"), Limits::default()).unwrap();
        keys.find(secret).unwrap().clone()
    }

    #[test]
    fn requests_come_evenly_after_a_burst() {
        let (rates, key, start) = (Rates::default(), key("requests=6"), Instant::now());
        let ask = |seconds: u64| {
            rates.take(&key, What::Requests, 1, start + Duration::from_secs(seconds)).map_err(|no| no.wait)
        };
        (0..6).for_each(|_| _ = ask(0).unwrap());
        assert_eq!(ask(0), Err(Duration::from_secs(10)));
        assert_eq!(ask(4).unwrap_err().as_millis(), 6000);
        assert!(ask(10).is_ok() && ask(11).is_err() && ask(20).is_ok());
        // Time that nobody uses is not saved up beyond a minute's worth.
        (0..6).for_each(|_| _ = ask(1000).unwrap());
        assert!(ask(1000).is_err());
        // Looking something up costs nothing, and needs nothing.
        assert!(rates.take(&key, What::Requests, 0, start + Duration::from_secs(1000)).is_ok());
    }

    #[test]
    fn tokens_are_set_aside_and_given_back() {
        let (rates, key) = (Rates::default(), key("tokens=100"));
        assert_eq!(rates.reserve(&key, 60), Ok(60));
        let denied = rates.reserve(&key, 60).unwrap_err();
        assert_eq!((denied.what, denied.limit, denied.asked), (What::Tokens, 100, 60));
        assert!(denied.wait > Duration::from_secs(11) && denied.wait <= Duration::from_secs(12));
        rates.settle(&key, 60, 10);
        assert_eq!(rates.reserve(&key, 60), Ok(60));
        // Whoever uses more than was known waits for it later.
        rates.settle(&key, 60, 200);
        assert!(rates.reserve(&key, 1).unwrap_err().wait > Duration::from_secs(60));
        let error = ApiError::from(denied);
        assert_eq!((error.status.as_u16(), error.kind, error.retry_after), (429, "tokens", Some(12)));
        assert_eq!(error.code, Some("rate_limit_exceeded"));
    }

    #[test]
    fn what_no_bucket_holds_takes_a_whole_one() {
        let (rates, small) = (Rates::default(), key("tokens=100"));
        assert_eq!(rates.reserve(&small, 5000), Ok(100));
        assert!(rates.reserve(&small, 1).is_err());
        assert_eq!(rates.reserve(&key(""), 5000), Ok(0), "no limit");
    }

    #[test]
    fn headers_tell_how_a_key_stands() {
        let (rates, key) = (Rates::default(), key("requests=60 tokens=6000"));
        rates.ask(&key, true).unwrap();
        rates.reserve(&key, 4500).unwrap();
        let mut headers = HeaderMap::new();
        rates.tell(&key, &mut headers);
        let value = |name: &str| headers[name].to_str().unwrap().to_owned();
        assert_eq!(
            (value("x-ratelimit-limit-requests"), value("x-ratelimit-limit-tokens")),
            ("60".into(), "6000".into())
        );
        assert_eq!(value("x-ratelimit-remaining-requests"), "59");
        assert!(value("x-ratelimit-remaining-tokens").starts_with("150"));
        assert_eq!(value("x-ratelimit-reset-tokens"), "45s");
        assert_eq!(
            (short(Duration::from_secs(90)), short(Duration::from_millis(120))),
            ("1m30s".into(), "120ms".into())
        );
    }
}
