//! What a scrape accepts, from its `Accept` and `Accept-Encoding`. Every text is answered: what cannot be read counts as not
//! said, and whoever accepts nothing that there is gets what everybody reads.

use http::HeaderMap;
use http::header::{ACCEPT, ACCEPT_ENCODING, AsHeaderName};

/// The formats of an exposition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// The text format 0.0.4.
    #[default]
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

/// What the answer to a scrape is to be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The format.
    pub format: Format,
    /// Whether it may come compressed by gzip.
    pub gzip: bool,
}

impl Wanted {
    /// Reads a request's headers.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        Self {
            format: format(headers),
            gzip: gzip(headers),
        }
    }
}

/// Elements read of a list; a scraper sends four or five.
const ELEMENTS_MAX: usize = 64;

/// Qualities are thousandths: they have at most three decimals.
const QUALITY_MAX: u16 = 1000;

/// OpenMetrics is for those who name it, and prefer it or like both as much: a `*/*` means whatever is usual, which is the
/// text format. Its parameter `escaping` needs no answer, because no name of ours needs escaping under any scheme.
fn format(headers: &HeaderMap) -> Format {
    let mut open_metrics = 0;
    // The most specific range that a format matches speaks for it, however high another one's quality is.
    let mut text = (0, 0);
    for element in elements(headers, ACCEPT) {
        let quality = element.quality;
        let version = element.parameter("version");
        let rank = match element.value {
            value if value.eq_ignore_ascii_case("application/openmetrics-text") => {
                if version.is_none_or(|version| version == "1.0.0") {
                    open_metrics = open_metrics.max(quality);
                }
                continue;
            }
            value if value.eq_ignore_ascii_case("text/plain") => match version {
                Some("0.0.4") => 4,
                None => 3,
                Some(_) => continue,
            },
            value if value.eq_ignore_ascii_case("text/*") => 2,
            "*/*" => 1,
            _ => continue,
        };
        text = text.max((rank, quality));
    }
    if open_metrics > 0 && open_metrics >= text.1 {
        Format::OpenMetrics
    } else {
        Format::Text
    }
}

/// Compressed, if that is wanted at least as much as not.
fn gzip(headers: &HeaderMap) -> bool {
    let (mut gzip, mut identity, mut any) = (None, None, None);
    for element in elements(headers, ACCEPT_ENCODING) {
        let place = match element.value {
            value if value.eq_ignore_ascii_case("gzip") || value.eq_ignore_ascii_case("x-gzip") => &mut gzip,
            value if value.eq_ignore_ascii_case("identity") => &mut identity,
            "*" => &mut any,
            _ => continue,
        };
        *place = (*place).max(Some(element.quality));
    }
    let gzip = gzip.or(any).unwrap_or(0);
    gzip > 0 && gzip >= identity.unwrap_or(0)
}

/// One element of a list: `value;name=value;q=0.5`.
struct Element<'a> {
    value: &'a str,
    parameters: &'a str,
    quality: u16,
}

impl<'a> Element<'a> {
    /// `None`: there is nothing in it, or its quality cannot be read.
    fn read(text: &'a str) -> Option<Self> {
        let (value, parameters) = text.split_once(';').unwrap_or((text, ""));
        let mut element = Self {
            value: value.trim(),
            parameters,
            quality: QUALITY_MAX,
        };
        if let Some(quality) = element.parameter("q") {
            element.quality = read_quality(quality)?;
        }
        (!element.value.is_empty()).then_some(element)
    }

    fn parameter(&self, name: &str) -> Option<&'a str> {
        self.parameters.split(';').find_map(|parameter| {
            let (known, value) = parameter.split_once('=')?;
            let value = value.trim();
            let bare = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
            known.trim().eq_ignore_ascii_case(name).then_some(bare.unwrap_or(value))
        })
    }
}

/// `0`, `1`, `0.5`: at most three decimals, and nothing above 1.
fn read_quality(text: &str) -> Option<u16> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !matches!(whole, "0" | "1") || decimals.len() > 3 || !digits(decimals) {
        return None;
    }
    let thousandths = format!("{whole}{decimals:0<3}").parse().ok()?;
    (thousandths <= QUALITY_MAX).then_some(thousandths)
}

/// The elements of a list, which may be spread over several headers. None that is used here has a comma in quotes.
fn elements<'a>(headers: &'a HeaderMap, name: impl AsHeaderName) -> impl Iterator<Item = Element<'a>> {
    headers
        .get_all(name)
        .into_iter()
        .filter_map(|header| header.to_str().ok())
        .flat_map(|header| header.split(','))
        .take(ELEMENTS_MAX)
        .filter_map(Element::read)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_format(accept: &str, expected: Format) {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().unwrap());
        assert_eq!(format(&headers), expected, "{accept}");
    }

    #[test]
    fn every_scraper_gets_the_best_format_that_it_asks_for() {
        use Format::{OpenMetrics, Text};
        assert_eq!(format(&HeaderMap::new()), Text);
        for (accept, expected) in [
            // Prometheus 2.42, 2.53, 3.5, and 3.x with native histograms.
            (
                "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                OpenMetrics,
            ),
            (
                "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
                OpenMetrics,
            ),
            (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
                OpenMetrics,
            ),
            (
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,application/openmetrics-text;version=1.0.0;escaping=underscores;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=underscores;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
                OpenMetrics,
            ),
            // A Prometheus that is told to scrape with the text format first.
            (
                "text/plain;version=0.0.4;q=0.6,application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.2",
                Text,
            ),
            // VictoriaMetrics, curl, a browser.
            ("text/plain;version=0.0.4;q=1,*/*;q=0.1", Text),
            ("*/*", Text),
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", Text),
            // People.
            ("application/openmetrics-text", OpenMetrics),
            (
                "APPLICATION/OpenMetrics-Text; Version=\"1.0.0\"; charset=utf-8",
                OpenMetrics,
            ),
            ("application/openmetrics-text, text/plain", OpenMetrics),
            (
                "application/openmetrics-text;version=1.0.0;q=0.3, text/plain;q=0.30",
                OpenMetrics,
            ),
            ("application/openmetrics-text;q=0.3, */*;q=0.1, text/*;q=0.5", Text),
        ] {
            check_format(accept, expected);
        }
    }

    #[test]
    fn what_is_refused_or_cannot_be_served_is_the_text_format() {
        for accept in [
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;q=0.000, */*;q=0",
            "application/openmetrics-text;version=0.0.1",
            "application/openmetrics-text;version=2.0.0",
            "application/openmetrics-text;q=2",
            "application/openmetrics-text;q=-1",
            "application/openmetrics-text;q=0.1234",
            "application/openmetrics-text;q=",
            "application/openmetrics-text;q=NaN",
            "application/*",
            "application/json",
            ";;;===,,,",
            "",
            "text/plain;version=1.0.0",
        ] {
            check_format(accept, Format::Text);
        }
    }

    #[test]
    fn gzip_is_for_those_who_want_it() {
        let check = |accept: Option<&str>, expected: bool| {
            let mut headers = HeaderMap::new();
            if let Some(accept) = accept {
                headers.insert(ACCEPT_ENCODING, accept.parse().unwrap());
            }
            assert_eq!(gzip(&headers), expected, "{accept:?}");
        };
        check(None, false);
        for yes in [
            "gzip",
            "GZip",
            "x-gzip",
            "deflate, gzip, br, zstd",
            "*",
            "gzip;q=0.5",
            "identity;q=0.5, gzip;q=1.0",
            "identity;q=0,*",
            "gzip; q=0.001",
            "identity, gzip",
        ] {
            check(Some(yes), true);
        }
        for no in [
            "",
            "identity",
            "gzip;q=0",
            "gzip;q=0.0, *",
            "*;q=0",
            "br",
            "identity;q=1, gzip;q=0.5",
            "identity, *;q=0.1",
            "gzip;q=x",
            "gzipped",
        ] {
            check(Some(no), false);
        }
    }

    #[test]
    fn a_list_may_be_spread_over_headers_and_has_an_end() {
        let mut headers = HeaderMap::new();
        headers.append(ACCEPT, "text/plain;q=0.1".parse().unwrap());
        headers.append(ACCEPT, "application/openmetrics-text".parse().unwrap());
        assert_eq!(format(&headers), Format::OpenMetrics);
        headers.insert(
            ACCEPT,
            (",".repeat(ELEMENTS_MAX) + "application/openmetrics-text")
                .parse()
                .unwrap(),
        );
        assert_eq!(format(&headers), Format::Text);
    }

    proptest::proptest! {
        #[test]
        fn no_header_makes_it_fail(accept in "[ -~]{0,60}", encoding in "[a-z;=.,* 0-9]{0,40}") {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, accept.parse().unwrap());
            headers.insert(ACCEPT_ENCODING, encoding.parse().unwrap());
            let _ = Wanted::of(&headers);
        }
    }
}
