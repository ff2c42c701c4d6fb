//! `POST /-/reload`: who may ask for it, and what the answer is. Never reloads anything itself (the view does).

use bytes::Bytes;
use http::header::{ALLOW, HOST, HeaderValue, ORIGIN};
use http::{HeaderMap, Method, StatusCode};

use super::{Answer, Frames, TEXT};

/// The path.
pub(super) const RELOAD: &str = "/-/reload";

/// The answer to a request that is not carried out. `None`: it is to be.
pub(super) fn refuse(method: &Method, headers: &HeaderMap, enabled: bool) -> Option<Answer> {
    // PUT, because Prometheus takes it too.
    if method != Method::POST && method != Method::PUT {
        let answer = Answer::text(StatusCode::METHOD_NOT_ALLOWED, "only POST and PUT are answered here\n");
        return Some(answer.with(ALLOW, HeaderValue::from_static("POST, PUT")));
    }
    if !enabled {
        return Some(Answer::text(
            StatusCode::FORBIDDEN,
            "reloading by HTTP is not enabled; see --web.enable-lifecycle (a SIGHUP does the same)\n",
        ));
    }
    (!is_meant(headers)).then(|| Answer::text(StatusCode::FORBIDDEN, "a page from elsewhere cannot ask for a reload\n"))
}

/// Whether the request does not come from a page of another origin: browsers send a POST without asking anybody, with the
/// passwords and certificates of whoever sits in front of them, but they say where it comes from. Other clients do not.
fn is_meant(headers: &HeaderMap) -> bool {
    let text = |name: &http::HeaderName| headers.get(name).map(HeaderValue::as_bytes);
    if let Some(site) = headers.get("sec-fetch-site") {
        return matches!(site.as_bytes(), b"same-origin" | b"none");
    }
    let Some(origin) = text(&ORIGIN) else { return true };
    let host = origin
        .strip_prefix(b"http://")
        .or_else(|| origin.strip_prefix(b"https://"));
    host.is_some_and(|host| text(&HOST).is_some_and(|asked| asked.eq_ignore_ascii_case(host)))
}

/// What has come of it, for people: Prometheus' own status codes.
pub(super) fn answer(outcome: Result<String, String>) -> Answer {
    let (status, text) = match outcome {
        Ok(text) => (StatusCode::OK, text),
        Err(text) => (StatusCode::INTERNAL_SERVER_ERROR, text),
    };
    Answer::new(status, TEXT, Frames::one(Bytes::from(format!("{text}\n"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(request: &str, enabled: bool, expected: Option<u16>) {
        let (method, rest) = request.split_once(' ').unwrap_or((request, ""));
        let headers = rest.split(' ').filter_map(|header| header.split_once('='));
        let headers: HeaderMap = headers
            .map(|(name, value)| {
                (
                    name.parse::<http::HeaderName>().unwrap(),
                    value.parse::<HeaderValue>().unwrap(),
                )
            })
            .collect();
        let answer = refuse(&method.parse().unwrap(), &headers, enabled);
        assert_eq!(
            answer.map(|answer| answer.response.status().as_u16()),
            expected,
            "{request}"
        );
    }

    #[test]
    fn a_reload_is_asked_for_by_post_where_it_is_enabled() {
        check("POST", true, None);
        check("PUT", true, None);
        check("POST", false, Some(403));
        for enabled in [true, false] {
            check("GET", enabled, Some(405));
            check("HEAD", enabled, Some(405));
            check("DELETE", enabled, Some(405));
        }
    }

    #[test]
    fn a_page_from_elsewhere_is_refused() {
        check("POST sec-fetch-site=cross-site", true, Some(403));
        check("POST sec-fetch-site=same-site", true, Some(403));
        check("POST sec-fetch-site=same-origin", true, None);
        check("POST sec-fetch-site=none", true, None);
        check("POST sec-fetch-site=", true, Some(403));
        let same = "host=exporter:10955 origin=http://exporter:10955";
        check(&format!("POST {same}"), true, None);
        check(&format!("POST sec-fetch-site=cross-site {same}"), true, Some(403));
        check("POST host=exporter origin=https://Exporter", true, None);
        check("POST host=exporter:10955 origin=http://exporter", true, Some(403));
        check("POST host=exporter origin=http://evil.example", true, Some(403));
        check("POST host=exporter origin=null", true, Some(403));
        check("POST origin=http://exporter", true, Some(403));
    }

    #[test]
    fn the_answer_says_what_has_come_of_it() {
        assert_eq!(answer(Ok("done".to_owned())).response.status(), 200);
        let failed = answer(Err("c.yaml: no".to_owned())).response;
        assert_eq!((failed.status().as_u16(), failed.body().len()), (500, 11));
    }
}
