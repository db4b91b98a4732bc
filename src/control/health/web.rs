//! HTTP(S) probes, and which of their answers count.
//!
//! A provider that wants something of its customer answers every request itself: a captive portal,
//! an unpaid bill. Such answers prove nothing about the way to the Internet. Most of them are
//! redirects to another host, by their status or by the header `Refresh`. The others differ by
//! their status or by the text of their page.

use std::error::Error;
use std::io;
use std::net::{IpAddr, Ipv4Addr};

use reqwest::header::{HeaderMap, HeaderValue, LOCATION, REFRESH};
use reqwest::{Method, Response, Url};

use super::names::Names;
use crate::config::{Expectation, Health, WebTarget};

/// Requests pages over one uplink.
pub(super) struct WebClient {
    client: reqwest::Client,
    expect: Expectation,
}

impl WebClient {
    /// Makes a client that sends from `source`.
    ///
    /// # Errors
    /// The system's certificates cannot be read.
    pub(super) fn new(source: Ipv4Addr, health: &Health) -> io::Result<Self> {
        // Fails if another part of the process has installed a provider.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let has_certificates = health.http.iter().any(|WebTarget(page)| page.scheme() == "https");
        let builder = match has_certificates {
            true => reqwest::Client::builder(),
            // Plain HTTP needs no certificates on the system.
            false => reqwest::Client::builder().tls_certs_only([]),
        };
        let client = builder
            .local_address(IpAddr::V4(source))
            .dns_resolver(Names::new())
            .user_agent(concat!("natbox/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            // Each answer must prove the path again, so connections are not reused.
            .pool_max_idle_per_host(0)
            .build()
            .map_err(|error| {
                let remedy =
                    "install the certificates of the authorities (Debian: ca-certificates)";
                io::Error::other(format!("health.http: no HTTP client ({error:?}); {remedy}"))
            })?;
        Ok(Self { client, expect: health.expect.clone() })
    }

    /// Requests a page.
    ///
    /// # Errors
    /// The reason why there is no answer that counts, as text for the log.
    pub(super) async fn request(&self, WebTarget(page): &WebTarget) -> Result<(), String> {
        let method = if self.expect.body.is_some() { Method::GET } else { Method::HEAD };
        let sent = self.client.request(method, page.clone()).send().await;
        let answer = sent.map_err(|error| innermost(&error))?;
        check_head(&self.expect, page, answer.status().as_u16(), answer.headers())?;
        match &self.expect.body {
            Some(text) => check_body(answer, text).await,
            None => Ok(()),
        }
    }
}

/// Checks status and redirect of an answer.
fn check_head(
    expect: &Expectation,
    page: &Url,
    status: u16,
    headers: &HeaderMap,
) -> Result<(), String> {
    if let Some(text) = redirect(status, headers) {
        let target = page.join(&text).map_err(|_| format!("a redirect to no page, `{text}`"))?;
        if !expect.foreign_redirect && !is_same_host(page, &target) {
            let host = target.host_str().unwrap_or("no host");
            return Err(format!("status {status}, a redirect to another host, {host}"));
        }
    }
    match expect.status.iter().any(|range| range.contains(status)) {
        true => Ok(()),
        false => Err(format!("status {status}")),
    }
}

/// Returns the page that an answer sends a browser to. `Location` counts in a redirect only.
/// Browsers follow `Refresh` in every answer.
fn redirect(status: u16, headers: &HeaderMap) -> Option<String> {
    let header = |name| {
        let value: &HeaderValue = headers.get(name)?;
        Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    let location = header(LOCATION).filter(|_| (300..400).contains(&status));
    location.or_else(|| refresh_target(&header(REFRESH)?).map(str::to_owned))
}

/// Returns the page of a `Refresh` header such as `0; url=http://portal.example.net/`, as browsers
/// read it (HTML, shared declarative refresh steps). None: the header reloads the same page, or is
/// malformed.
fn refresh_target(value: &str) -> Option<&str> {
    let value = value.trim();
    let rest = value.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let is_timed = rest.len() < value.len();
    if !is_timed || !rest.starts_with(|c: char| matches!(c, ';' | ',') || c.is_whitespace()) {
        return None;
    }
    let rest = rest.trim_start();
    let rest = rest.strip_prefix([';', ',']).unwrap_or(rest).trim_start();
    let after_word = rest.get(..3).filter(|word| word.eq_ignore_ascii_case("url"));
    let after_word = after_word.and_then(|_| rest[3..].trim_start().strip_prefix('='));
    let target = after_word.unwrap_or(rest).trim_start();
    let quoted = target.strip_prefix('"').map(|inner| (inner, '"'));
    let quoted = quoted.or_else(|| target.strip_prefix('\'').map(|inner| (inner, '\'')));
    let target = match quoted {
        Some((inner, quote)) => inner.split(quote).next().unwrap_or(inner),
        None => target,
    };
    (!target.is_empty()).then_some(target)
}

/// Returns whether two pages have one host. Some sites have their pages at `www.` of their name.
fn is_same_host(page: &Url, target: &Url) -> bool {
    fn name(url: &Url) -> Option<&str> {
        // The URL parser writes names in lower case.
        url.host_str().map(|host| host.strip_prefix("www.").unwrap_or(host))
    }
    // An unencrypted page must not replace an encrypted one.
    let keeps_scheme = target.scheme() == "https" || target.scheme() == page.scheme();
    keeps_scheme && name(page).is_some() && name(page) == name(target)
}

/// Reads a page until it contains the text.
async fn check_body(mut answer: Response, text: &str) -> Result<(), String> {
    let mut body: Vec<u8> = Vec::new();
    while let Some(part) = answer.chunk().await.map_err(|error| innermost(&error))? {
        // The text may begin at the end of the part before.
        let from = body.len().saturating_sub(text.len());
        body.extend_from_slice(&part[..part.len().min(MAX_BODY - body.len())]);
        if body[from..].windows(text.len()).any(|window| window == text.as_bytes()) {
            return Ok(());
        }
        if body.len() == MAX_BODY {
            break;
        }
    }
    Err("the page does not contain the text of health.expect.body".to_owned())
}

/// Returns the innermost cause. The outer errors only name the page.
fn innermost(error: &dyn Error) -> String {
    let mut error = error;
    while let Some(cause) = error.source() {
        error = cause;
    }
    error.to_string()
}

/// Most bytes of a page that natbox reads.
const MAX_BODY: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use std::net::SocketAddrV4;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    fn head(page: &str, status: u16, location: Option<&str>) -> Result<(), String> {
        let headers = location.map(|location| (LOCATION, location.parse().unwrap()));
        let headers = headers.into_iter().collect();
        check_head(&Expectation::usual(), &page.parse().unwrap(), status, &headers)
    }

    fn refresh(page: &str, value: &str) -> Result<(), String> {
        let headers = [(REFRESH, value.parse().unwrap())].into_iter().collect();
        check_head(&Expectation::usual(), &page.parse().unwrap(), 200, &headers)
    }

    #[test]
    fn by_default_a_redirect_to_another_host_is_no_answer() {
        for location in [
            "http://portal.example.net/login",
            "https://portal.example.net/",
            "//10.0.0.1/",
            "http://example.org.evil/",
            "http://sub.example.org/",
            "login:now",
            "http://[broken/",
        ] {
            let error = head("http://example.org/alive", 302, Some(location)).unwrap_err();
            assert!(error.contains("redirect"), "{location}: {error}");
        }
        assert!(head("https://example.org/", 302, Some("http://example.org/")).is_err());
        let any = Expectation { foreign_redirect: true, ..Expectation::usual() };
        let page = "http://example.org/".parse().unwrap();
        let portal = "http://portal.example.net/";
        let headers = [(LOCATION, portal.parse().unwrap())].into_iter().collect();
        assert_eq!(check_head(&any, &page, 302, &headers), Ok(()));
    }

    #[test]
    fn a_redirect_to_the_same_host_is_an_answer() {
        for location in [
            "https://example.org/alive",
            "/other",
            "other",
            "http://EXAMPLE.org:8080/",
            "https://www.example.org/",
        ] {
            assert_eq!(head("http://example.org/alive", 301, Some(location)), Ok(()), "{location}");
        }
        assert_eq!(head("http://www.example.org/", 308, Some("https://example.org/")), Ok(()));
        assert_eq!(head("http://example.org/", 304, None), Ok(()), "without a place to go");
        // Only a redirect goes somewhere.
        assert_eq!(head("http://example.org/", 201, Some("http://example.net/")), Ok(()));
    }

    #[test]
    fn refresh_that_leads_to_another_host_is_no_answer() {
        for value in [
            "0;url=http://portal.example.net/login",
            "0; URL=http://portal.example.net/",
            "5, url = 'http://portal.example.net/'; more",
            "0 http://portal.example.net/",
            "0.5;\"//portal.example.net/\"",
        ] {
            let error = refresh("http://example.org/alive", value).unwrap_err();
            assert!(error.contains("another host, portal.example.net"), "{value}: {error}");
        }
    }

    #[test]
    fn refresh_of_the_same_host_is_an_answer() {
        for value in
            ["30", "30;", "0;url=", "0; url=/other", "0; https://example.org/", "soon;url=x"]
        {
            assert_eq!(refresh("http://example.org/alive", value), Ok(()), "{value}");
        }
    }

    #[test]
    fn other_statuses_than_the_expected_ones_are_no_answers() {
        for status in [199, 400, 404, 500, 511] {
            let error = head("http://example.org/", status, None);
            assert_eq!(error, Err(format!("status {status}")));
        }
        let only = crate::config::StatusRange { first: 204, last: 204 };
        let expect = Expectation { status: vec![only], ..Expectation::usual() };
        let page = "http://example.org/".parse().unwrap();
        let none = HeaderMap::new();
        assert_eq!(check_head(&expect, &page, 204, &none), Ok(()));
        assert_eq!(check_head(&expect, &page, 200, &none), Err("status 200".to_owned()));
    }

    /// Serves one answer to each connection. Returns the page.
    async fn serve(parts: Vec<Vec<u8>>) -> WebTarget {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 1024];
                let length = stream.read(&mut request).await.unwrap();
                assert!(request[..length].starts_with(b"GET /"), "only GET has a page");
                let head = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n";
                // The client closes early, when it has read enough.
                let _ = stream.write_all(head).await;
                for part in &parts {
                    let _ = stream.write_all(part).await;
                    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                }
            }
        });
        WebTarget(format!("http://{address}/").parse().unwrap())
    }

    async fn finds(parts: &[&[u8]]) -> Result<(), String> {
        let page = serve(parts.iter().map(|part| part.to_vec()).collect()).await;
        let expect = Expectation { body: Some("all is well".to_owned()), ..Expectation::usual() };
        let health = Health { http: vec![page.clone()], expect, ..Health::of_pings(0) };
        WebClient::new(Ipv4Addr::LOCALHOST, &health).unwrap().request(&page).await
    }

    #[tokio::test]
    async fn the_text_of_a_page_is_found_in_its_first_64_kib() {
        assert_eq!(finds(&[b"here all is well."]).await, Ok(()));
        assert_eq!(finds(&[b"here all is", b" well."]).await, Ok(()), "in two parts");
        assert_eq!(finds(&[&[b'x'; 60 << 10], b"all is well"]).await, Ok(()));
        for parts in [
            &[&b"please log in"[..]][..],
            &[b"All is well"],
            &[],
            &[&[b'x'; MAX_BODY], b"all is well"],
        ] {
            let error = finds(parts).await.unwrap_err();
            assert!(error.contains("expect.body"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_page_without_a_server_is_an_error() {
        let page = format!("http://{}/", SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1));
        let page = WebTarget(page.parse().unwrap());
        let health = Health { http: vec![page.clone()], ..Health::of_pings(0) };
        let error = WebClient::new(Ipv4Addr::LOCALHOST, &health).unwrap().request(&page).await;
        assert!(error.unwrap_err().contains("refused"));
    }
}
