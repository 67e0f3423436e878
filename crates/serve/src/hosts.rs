//! Whom a browser may take this server for.
//!
//! A server on loopback is open to every page that a browser on this machine shows: the page's name can be made to lead to
//! 127.0.0.1 (DNS rebinding), and then its scripts may ask and read. But such a request has the page's name as `Host`. So names
//! that are not this machine's are refused; addresses are not names, and cannot be made to lead elsewhere. A request that a
//! page of another origin sends has that as `Origin`, and is refused, too, unless it was allowed with `--cors`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::cors::Origins;
use crate::error::ApiError;
use crate::guards::Guards;

/// The names under which the server may be asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hosts {
    /// Names beside those of this machine, in small letters; without a list, any name.
    names: Option<Vec<String>>,
}

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Refused {
    NoHost,
    Host(String),
    Origin(String),
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> ApiError {
        let forbidden = |message: String, code: &'static str| {
            ApiError::new(StatusCode::FORBIDDEN, "invalid_request_error", message).code(code)
        };
        match refused {
            Refused::NoHost => {
                ApiError::bad("the request must have one header `Host`, which is a name or an address")
            }
            Refused::Host(host) => forbidden(
                format!(
                    "this server is not known as {host:?}; whoever runs it may allow the name with --allow-host"
                ),
                "host_not_allowed",
            ),
            Refused::Origin(origin) => forbidden(
                format!(
                    "pages of {origin:?} may not ask this server; whoever runs it may allow them with --cors"
                ),
                "origin_not_allowed",
            ),
        }
    }
}

impl Hosts {
    /// For a server that listens at `host`: on loopback only its own names are known, and elsewhere any, unless `allowed` names
    /// some.
    pub fn new(host: &str, is_loopback: bool, allowed: &[String]) -> Hosts {
        let names = is_loopback || !allowed.is_empty();
        let all = allowed.iter().map(String::as_str).chain([host]);
        Hosts {
            names: names.then(|| all.map(|name| name.trim_end_matches('.').to_ascii_lowercase()).collect()),
        }
    }

    fn check(&self, uri: &Uri, headers: &HeaderMap, origins: &Origins) -> Result<(), Refused> {
        let Some(names) = &self.names else { return Ok(()) };
        let mut hosts = headers.get_all(header::HOST).iter();
        let own = match (hosts.next(), hosts.next()) {
            (Some(host), None) => host.to_str().ok().and_then(authority).ok_or(Refused::NoHost)?,
            _ => return Err(Refused::NoHost),
        };
        // Where the whole address is in the first line, that counts, too.
        for authority in uri.authority().into_iter().chain([&own]) {
            if !is_known(names, authority.host()) {
                return Err(Refused::Host(authority.host().to_owned()));
            }
        }
        for origin in headers.get_all(header::ORIGIN) {
            let origin = String::from_utf8_lossy(origin.as_bytes());
            if !origins.allow(&origin) && !is_same(names, &own, &origin) {
                return Err(Refused::Origin(origin.into_owned()));
            }
        }
        Ok(())
    }
}

fn authority(text: &str) -> Option<Authority> {
    let authority: Authority = text.parse().ok()?;
    (!authority.as_str().contains('@')).then_some(authority)
}

/// Whether a host is an address, this machine, or one of the names.
fn is_known(names: &[String], host: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let is_address = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(host) => host.parse::<Ipv6Addr>().is_ok(),
        None => host.parse::<Ipv4Addr>().is_ok(),
    };
    is_address || host == "localhost" || host.ends_with(".localhost") || names.contains(&host)
}

/// Whether an origin is the server itself: what the browser asked for, or a name that was allowed, behind which a proxy may
/// have changed `Host`.
fn is_same(names: &[String], own: &Authority, origin: &str) -> bool {
    let Ok(uri) = origin.parse::<Uri>() else { return false };
    let (Some(theirs), Some(scheme)) = (uri.authority(), uri.scheme_str()) else { return false };
    let usual = match scheme {
        "http" => 80,
        "https" => 443,
        _ => return false,
    };
    let port = |authority: &Authority| authority.port_u16().unwrap_or(usual);
    let is_own = theirs.host().eq_ignore_ascii_case(own.host()) && port(theirs) == port(own);
    // The address that the server listens at is among the names, but another port of it is another server.
    let is_allowed = || {
        let name = theirs.host().to_ascii_lowercase();
        names.contains(&name) && name.parse::<IpAddr>().is_err() && name != "localhost"
    };
    is_own || is_allowed()
}

/// Refuses what a browser was tricked into.
pub(crate) async fn check(State(guards): State<Arc<Guards>>, request: Request, next: Next) -> Response {
    match guards.hosts.check(request.uri(), request.headers(), &guards.origins) {
        Ok(()) => next.run(request).await,
        Err(refused) => ApiError::from(refused).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(hosts: &Hosts, host: &str, origin: Option<&str>) -> Result<(), Refused> {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.parse().unwrap());
        }
        let origins = Origins::of(&["https://friend.example".to_owned()]).unwrap();
        hosts.check(&Uri::from_static("/v1/models"), &headers, &origins)
    }

    #[test]
    fn only_this_machines_names_on_loopback() {
        let hosts = Hosts::new("127.0.0.1", true, &[]);
        for own in [
            "127.0.0.1:8080",
            "localhost:9",
            "LOCALHOST",
            "localhost.",
            "app.localhost:1",
            "[::1]:80",
            "10.0.0.7:8080",
        ] {
            assert_eq!(checked(&hosts, own, None), Ok(()), "{own}");
        }
        for other in [
            "evil.example",
            "evil.example:8080",
            "localhost.evil.example",
            "127.0.0.1.nip.io",
            "xlocalhost",
            "1.2.3",
        ] {
            assert!(matches!(checked(&hosts, other, None), Err(Refused::Host(_))), "{other}");
        }
        for broken in ["", "a b", "user@localhost"] {
            assert_eq!(checked(&hosts, broken, None), Err(Refused::NoHost), "{broken}");
        }
        let none = hosts.check(&Uri::from_static("/"), &HeaderMap::new(), &Origins::default());
        assert_eq!(none, Err(Refused::NoHost));
        let mut two = HeaderMap::new();
        for host in ["localhost", "evil.example"] {
            two.append(header::HOST, host.parse().unwrap());
        }
        assert_eq!(hosts.check(&Uri::from_static("/"), &two, &Origins::default()), Err(Refused::NoHost));
        two.remove(header::HOST);
        two.append(header::HOST, "localhost".parse().unwrap());
        let whole = Uri::from_static("http://evil.example/v1/models");
        assert!(hosts.check(&whole, &two, &Origins::default()).is_err());
    }

    #[test]
    fn names_that_are_allowed() {
        let hosts = Hosts::new("0.0.0.0", false, &["Chat.Example".to_owned()]);
        assert_eq!(checked(&hosts, "chat.example", Some("https://chat.example")), Ok(()));
        assert_eq!(checked(&hosts, "10.1.2.3:8080", None), Ok(()), "a probe");
        assert!(checked(&hosts, "evil.example", None).is_err());
        assert_eq!(
            checked(&Hosts::new("0.0.0.0", false, &[]), "any.example", Some("https://other.example")),
            Ok(())
        );
    }

    #[test]
    fn pages_of_other_origins_are_refused() {
        let hosts = Hosts::new("127.0.0.1", true, &["chat.example".to_owned()]);
        let from = |origin: &str| checked(&hosts, "127.0.0.1:8080", Some(origin));
        assert_eq!(from("http://127.0.0.1:8080"), Ok(()));
        assert_eq!(from("https://friend.example"), Ok(()), "named with --cors");
        assert_eq!(from("https://chat.example"), Ok(()), "behind a proxy");
        for other in [
            "http://evil.example",
            "null",
            "http://127.0.0.1:3000",
            "http://localhost:8080",
            "file://",
            "",
            "http://",
        ] {
            assert!(matches!(from(other), Err(Refused::Origin(_))), "{other}");
        }
        assert_eq!(checked(&hosts, "localhost", Some("http://localhost")), Ok(()));
        assert_eq!(checked(&hosts, "localhost:443", Some("https://localhost")), Ok(()));
    }
}
