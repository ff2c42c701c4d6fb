//! The web configuration in the format of Prometheus' exporter-toolkit: text in, checked settings out, or every problem with
//! its key. Never opens a file (`access` does) and never repeats a value that could be a secret.
//!
//! What the format allows and this server has no use for is a warning, so that a file written for node_exporter works as it is.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;
use std::path::Path;
use std::str::FromStr as _;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use rustls::crypto::{SupportedKxGroup, ring};
use rustls::{ProtocolVersion, SupportedCipherSuite};
use secrecy::SecretString;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// Work doubles with each step, and 14 is about a second. Above that, a server that starts again spends its first scrapes on
/// one password.
const BCRYPT_COST_MAX: u32 = 14;

/// A few people and a few Prometheus servers.
const USERS_MAX: usize = 1000;

/// One thing that is wrong with the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The path of the key; empty for the file as a whole.
    pub key: String,
    /// What is wrong, and what was expected.
    pub message: String,
    /// The line and the column, where it is the text that is wrong.
    pub(super) at: Option<(u64, u64)>,
}

impl Problem {
    pub(super) fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            message: message.into(),
            at: None,
        }
    }

    /// What stands behind the file's name: `:2:10`, or nothing.
    #[must_use]
    pub fn place(&self) -> String {
        self.at
            .map(|(line, column)| format!(":{line}:{column}"))
            .unwrap_or_default()
    }

    /// With the file that it is in, as the problems of a configuration are shown.
    #[must_use]
    pub fn shown_in(&self, file: &Path) -> String {
        format!("{}{}: {self}", file.display(), self.place())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.key.is_empty() {
            formatter.write_str(&self.message)
        } else {
            write!(formatter, "{}: {}", self.key, self.message)
        }
    }
}

/// What the file says.
#[derive(Debug)]
pub(super) struct WebConfig {
    /// None: plain HTTP.
    pub(super) tls: Option<Tls>,
    /// Whether HTTP/2 is offered over TLS.
    pub(super) http2: bool,
    /// Put on every answer.
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// Name to bcrypt hash. None: everybody is let in.
    pub(super) users: BTreeMap<String, String>,
    /// For all clients together.
    pub(super) rate_limit: Option<RateLimit>,
    /// What was allowed and does nothing, or not what it seems.
    pub(super) warnings: Vec<String>,
}

/// How the connection is protected.
#[derive(Debug)]
pub(super) struct Tls {
    pub(super) certificate: Pem,
    pub(super) key: Pem,
    pub(super) client_ca: Option<Pem>,
    pub(super) client_auth: ClientAuth,
    /// None: any name.
    pub(super) client_allowed_sans: Option<Vec<String>>,
    pub(super) versions: Vec<&'static rustls::SupportedProtocolVersion>,
    /// Those of TLS 1.2: the ones of 1.3 are not configurable, as in Go.
    pub(super) cipher_suites: Vec<SupportedCipherSuite>,
    pub(super) curves: Vec<&'static dyn SupportedKxGroup>,
    pub(super) prefer_server_cipher_suites: bool,
}

/// Where a certificate or a key is.
#[derive(Debug)]
pub(super) enum Pem {
    Inline {
        key: &'static str,
        text: SecretString,
    },
    /// A path as it is written: relative to the file.
    File {
        key: &'static str,
        path: String,
    },
}

/// What is asked of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClientAuth {
    None,
    /// A certificate is asked for, and neither needed nor checked.
    Request,
    /// Some certificate is needed, and not checked against an authority.
    RequireAny,
    VerifyIfGiven,
    RequireAndVerify,
}

impl ClientAuth {
    pub(super) const fn is_required(self) -> bool {
        matches!(self, Self::RequireAny | Self::RequireAndVerify)
    }

    /// Whether a certificate that is shown must be of the client authority.
    pub(super) const fn is_verified(self) -> bool {
        matches!(self, Self::VerifyIfGiven | Self::RequireAndVerify)
    }
}

/// A token bucket for all requests together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RateLimit {
    pub(super) interval: Duration,
    pub(super) burst: NonZeroU32,
}

/// Reads the file's text.
pub(super) fn read(text: &str) -> Result<WebConfig, Vec<Problem>> {
    let problems = RefCell::new(Vec::new());
    let mut warnings = Vec::new();
    let mut root = Section {
        path: String::new(),
        members: root(text).map_err(|problem| vec![problem])?,
        known: Vec::new(),
        problems: &problems,
    };
    let tls = root.section("tls_server_config");
    let tls = read_tls(tls, &mut warnings);
    let mut http = root.section("http_server_config");
    let http2 = http.truth("http2").unwrap_or(true);
    let headers = read_headers(http.section("headers"));
    http.finish();
    let users = read_users(root.section("basic_auth_users"));
    let rate_limit = read_rate_limit(root.section("rate_limit"));
    root.finish();
    if !users.is_empty() && tls.is_none() {
        warnings.push("basic_auth_users without TLS: passwords are sent in plain text".to_owned());
    }
    let problems = problems.into_inner();
    if problems.is_empty() {
        Ok(WebConfig {
            tls,
            http2,
            headers,
            users,
            rate_limit,
            warnings,
        })
    } else {
        Err(problems)
    }
}

const CLIENT_AUTH: [(&str, ClientAuth); 6] = [
    ("NoClientCert", ClientAuth::None),
    ("RequestClientCert", ClientAuth::Request),
    ("RequireAnyClientCert", ClientAuth::RequireAny),
    // The toolkit's own old name of the same.
    ("RequireClientCert", ClientAuth::RequireAny),
    ("VerifyClientCertIfGiven", ClientAuth::VerifyIfGiven),
    ("RequireAndVerifyClientCert", ClientAuth::RequireAndVerify),
];

/// Oldest first. What is older than 1.2 can be named and is not spoken.
const VERSIONS: [&str; 4] = ["TLS10", "TLS11", "TLS12", "TLS13"];
const TLS12: usize = 2;
const TLS13: usize = 3;

fn read_tls(mut tls: Section<'_>, warnings: &mut Vec<String>) -> Option<Tls> {
    let had_keys = !tls.members.is_empty();
    let certificate = tls.pem("cert", "cert_file", warnings);
    let key = tls.pem("key", "key_file", warnings);
    let client_ca = tls.pem("client_ca", "client_ca_file", warnings);
    let told_auth = tls.choice("client_auth_type", &CLIENT_AUTH.map(|(word, _)| word));
    let client_auth = told_auth.map_or(ClientAuth::None, |index| CLIENT_AUTH[index].1);
    let client_allowed_sans = tls.texts("client_allowed_sans");
    let versions = read_versions(&mut tls, warnings);
    let cipher_suites = read_cipher_suites(&mut tls, &versions, warnings);
    let curves = read_curves(&mut tls, warnings);
    let prefer_server_cipher_suites = tls.truth("prefer_server_cipher_suites").unwrap_or(true);
    let is_enabled = certificate.is_some() || key.is_some() || client_ca.is_some() || told_auth.is_some();
    if !is_enabled {
        if had_keys {
            warnings.push("tls_server_config has no certificate: this is served without TLS".to_owned());
        }
        tls.finish();
        return None;
    }
    if certificate.is_none() {
        tls.problem(
            "cert_file",
            "there is no certificate; expected the path of a PEM file (or cert)",
        );
    }
    if key.is_none() {
        tls.problem("key_file", "there is no key; expected the path of a PEM file (or key)");
    }
    if client_auth.is_verified() && client_ca.is_none() {
        tls.problem(
            "client_ca_file",
            "there is nothing to verify clients with; expected the path of a PEM file (or client_ca)",
        );
    }
    if client_ca.is_some() && client_auth == ClientAuth::None {
        tls.problem(
            "client_auth_type",
            "a client CA does nothing without it; expected RequireAndVerifyClientCert",
        );
    }
    if client_allowed_sans.is_some() && !client_auth.is_required() {
        tls.problem(
            "client_allowed_sans",
            "no client has to show a certificate; expected client_auth_type RequireAndVerifyClientCert",
        );
    }
    tls.finish();
    Some(Tls {
        certificate: certificate?,
        key: key?,
        client_ca,
        client_auth,
        client_allowed_sans,
        versions,
        cipher_suites,
        curves,
        prefer_server_cipher_suites,
    })
}

fn read_versions(tls: &mut Section<'_>, warnings: &mut Vec<String>) -> Vec<&'static rustls::SupportedProtocolVersion> {
    let least = tls.choice("min_version", &VERSIONS).unwrap_or(TLS12);
    let most = tls.choice("max_version", &VERSIONS).unwrap_or(TLS13);
    if least < TLS12 {
        warnings.push("tls_server_config.min_version: the oldest version that is spoken here is TLS12".to_owned());
    }
    if most < TLS12 {
        tls.problem(
            "max_version",
            "nothing older than TLS 1.2 is spoken; expected TLS12 or TLS13",
        );
    } else if least > most {
        tls.problem("min_version", "it is above max_version; expected at most that");
    }
    let mut versions = Vec::new();
    if most >= TLS13 {
        versions.push(&rustls::version::TLS13);
    }
    if least <= TLS12 {
        versions.push(&rustls::version::TLS12);
    }
    versions
}

/// Go's suites that rustls does not have: CBC, and RSA without forward secrecy.
const SUITES_NOT_HERE: [&str; 9] = [
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
];

/// Go's name of a suite: those of TLS 1.3 have no exchange in it.
fn go_name(suite: SupportedCipherSuite) -> String {
    format!("{:?}", suite.suite()).replace("TLS13_", "TLS_")
}

/// Whether it could be a hash that slipped into the place of a name. No name that means something has a `$`.
fn may_be_secret(name: &str) -> bool {
    name.contains('$')
}

/// Which one of a list: by its name if it can be no key, hash or password in the wrong place, else by its number.
fn entry(place: usize, name: &str) -> String {
    if !may_be_secret(name) && (name.starts_with("TLS_") || name.starts_with("Curve") && name.len() < 16) {
        name.chars().take(64).collect::<String>().escape_debug().to_string()
    } else {
        format!("entry {}", place + 1)
    }
}

fn read_cipher_suites(
    tls: &mut Section<'_>,
    versions: &[&'static rustls::SupportedProtocolVersion],
    warnings: &mut Vec<String>,
) -> Vec<SupportedCipherSuite> {
    let known = ring::ALL_CIPHER_SUITES;
    let is_newest = |suite: &SupportedCipherSuite| suite.version().version == ProtocolVersion::TLSv1_3;
    let all_newest = known.iter().copied().filter(is_newest);
    // Go takes an empty list for none, as if it were not there.
    let names = tls.texts("cipher_suites").unwrap_or_default();
    if names.is_empty() {
        return known.to_vec();
    }
    let mut chosen = Vec::new();
    let mut ignored = Vec::new();
    for (place, name) in names.iter().enumerate() {
        if let Some(suite) = known.iter().find(|suite| go_name(**suite) == *name) {
            if !is_newest(suite) && !chosen.contains(suite) {
                chosen.push(*suite);
            }
        } else if SUITES_NOT_HERE.contains(&&**name) {
            ignored.push(name.as_str());
        } else {
            let which = entry(place, name);
            tls.problem(
                "cipher_suites",
                &format!("{which} is not known; expected names such as TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"),
            );
        }
    }
    if !ignored.is_empty() {
        let ignored = ignored.join(", ");
        warnings.push(format!(
            "tls_server_config.cipher_suites: not spoken here, and left out: {ignored}"
        ));
    }
    let speaks_newest = versions
        .iter()
        .any(|version| version.version == ProtocolVersion::TLSv1_3);
    if chosen.is_empty() && !speaks_newest {
        tls.problem(
            "cipher_suites",
            "none of them is spoken here with TLS 1.2; expected one such as TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        );
    }
    all_newest.chain(chosen).collect()
}

fn read_curves(tls: &mut Section<'_>, warnings: &mut Vec<String>) -> Vec<&'static dyn SupportedKxGroup> {
    let names = tls.texts("curve_preferences").unwrap_or_default();
    if names.is_empty() {
        return ring::ALL_KX_GROUPS.to_vec();
    }
    let mut chosen = Vec::new();
    for (place, name) in names.iter().enumerate() {
        match name.as_str() {
            "X25519" => chosen.push(ring::kx_group::X25519),
            "CurveP256" => chosen.push(ring::kx_group::SECP256R1),
            "CurveP384" => chosen.push(ring::kx_group::SECP384R1),
            "CurveP521" => warnings
                .push("tls_server_config.curve_preferences: CurveP521 is not spoken here, and left out".to_owned()),
            _ => tls.problem(
                "curve_preferences",
                &format!(
                    "{} is not known; expected X25519, CurveP256 or CurveP384",
                    entry(place, name)
                ),
            ),
        }
    }
    if chosen.is_empty() {
        tls.problem(
            "curve_preferences",
            "none of them is spoken here; expected X25519, CurveP256 or CurveP384",
        );
    }
    chosen
}

/// The toolkit's list, and what each may say. Empty: anything.
const HEADERS: [(&str, &[&str]); 5] = [
    ("Strict-Transport-Security", &[]),
    ("X-Content-Type-Options", &["nosniff"]),
    ("X-Frame-Options", &["deny", "sameorigin"]),
    ("X-XSS-Protection", &[]),
    ("Content-Security-Policy", &[]),
];

fn read_headers(mut section: Section<'_>) -> Vec<(HeaderName, HeaderValue)> {
    let mut headers = Vec::new();
    for (name, allowed) in HEADERS {
        let Some(text) = section.scalar(name) else { continue };
        if !allowed.is_empty() && !allowed.contains(&&*text) {
            section.problem(
                name,
                &format!("this cannot be said with it; expected {}", allowed.join(" or ")),
            );
        } else if text.is_empty() {
            // Unset, as the toolkit's document says.
        } else if let (Ok(name), Ok(value)) = (HeaderName::from_str(name), HeaderValue::from_str(&text)) {
            headers.push((name, value));
        } else {
            section.problem(name, "this is no value of a header; expected text on one line");
        }
    }
    section.finish();
    headers
}

fn read_users(section: Section<'_>) -> BTreeMap<String, String> {
    let mut users = BTreeMap::new();
    if section.members.len() > USERS_MAX {
        section.problem("", &format!("there are too many users; expected at most {USERS_MAX}"));
        return users;
    }
    for (name, node) in &section.members {
        let hash = node.text().unwrap_or_default();
        if name.contains(':') {
            section.problem(
                name,
                "a user's name cannot hold a colon: HTTP could not tell where it ends",
            );
        }
        match bcrypt_cost(&hash) {
            Some(cost) if cost <= BCRYPT_COST_MAX => drop(users.insert(name.clone(), hash)),
            Some(cost) => section.problem(
                name,
                &format!(
                    "its bcrypt cost is {cost}, and each check would take seconds; expected at most {BCRYPT_COST_MAX}"
                ),
            ),
            None => section.problem(
                name,
                "this is not a bcrypt hash; expected what `htpasswd -nBC 10 NAME` prints after the colon",
            ),
        }
    }
    users
}

/// The cost of a hash that can be checked; `None` for everything else.
fn bcrypt_cost(hash: &str) -> Option<u32> {
    bcrypt::HashParts::from_str(hash).ok()?;
    let cost = hash.split('$').nth(2)?.parse().ok()?;
    (4..=31).contains(&cost).then_some(cost)
}

fn read_rate_limit(mut section: Section<'_>) -> Option<RateLimit> {
    const INTERVAL: &str = "this is not a duration; expected one such as 100ms, 1s or 1m30s";
    let interval = section.scalar("interval").map(|text| {
        let interval = go_duration(&text);
        if interval.is_none() {
            section.problem("interval", INTERVAL);
        }
        interval.unwrap_or_default()
    });
    let burst = section.scalar("burst").map(|text| text.parse::<u32>().ok());
    if burst == Some(None) {
        section.problem("burst", "this is not a whole number of requests; expected 1 or more");
    }
    let interval = interval.filter(|interval| !interval.is_zero());
    let burst = NonZeroU32::new(burst.flatten().unwrap_or_default());
    if interval.is_some() && burst.is_none() {
        section.problem("burst", "no request would ever be answered; expected 1 or more");
    }
    section.finish();
    Some(RateLimit {
        interval: interval?,
        burst: burst?,
    })
}

/// A duration as Go reads it, but not below 0. A bare number is nanoseconds, as YAML gives it to Go.
fn go_duration(text: &str) -> Option<Duration> {
    if let Ok(nanoseconds) = text.parse::<u64>() {
        return Some(Duration::from_nanos(nanoseconds));
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    let mut seconds = 0.0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let number = rest.find(|char: char| !char.is_ascii_digit() && char != '.')?;
        let (number, after) = rest.split_at(number);
        let unit = after.find(|char: char| char.is_ascii_digit() || char == '.');
        let (unit, after) = after.split_at(unit.unwrap_or(after.len()));
        let unit = match unit {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        seconds += number.parse::<f64>().ok()? * unit;
        rest = after;
    }
    // Go's own durations end after 292 years.
    Duration::try_from_secs_f64(seconds)
        .ok()
        .filter(|duration| *duration < Duration::from_secs(9_000_000_000))
}

// ---- YAML -----------------------------------------------------------------------------------------------------------

/// A value as it is written. Types come from what is expected: to Go, `123` is a fine text.
#[derive(Debug)]
enum Node {
    Null,
    Scalar(String),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

impl Node {
    fn text(&self) -> Option<String> {
        match self {
            Self::Scalar(text) => Some(text.clone()),
            _ => None,
        }
    }
}

fn root(text: &str) -> Result<Vec<(String, Node)>, Problem> {
    let problem = |message: String| Problem::new("", message);
    // Nothing but spaces and comments is an empty configuration.
    let is_empty = text
        .lines()
        .all(|line| line.trim_start().is_empty() || line.trim_start().starts_with('#'));
    if is_empty {
        return Ok(Vec::new());
    }
    match serde_saphyr::from_str::<Node>(text) {
        Ok(Node::Map(members)) => Ok(members),
        Ok(Node::Null) => Ok(Vec::new()),
        Ok(_) => Err(problem(
            "the file is not a mapping; expected tls_server_config, basic_auth_users and the like".to_owned(),
        )),
        Err(error) => Err(syntax(&error)),
    }
}

/// The parser's own words may quote a key or a hash.
fn syntax(error: &serde_saphyr::Error) -> Problem {
    let error = error.without_snippet();
    let what = match error {
        serde_saphyr::Error::DuplicateMappingKey { .. } => "a key is there twice; expected each key once",
        serde_saphyr::Error::MultipleDocuments { .. } => {
            "a second document begins here; expected one document in the file"
        }
        _ => "this is not readable as YAML; expected valid YAML (look at indentation, quotes and colons here)",
    };
    Problem {
        at: error.location().map(|at| (at.line(), at.column())),
        ..Problem::new("", what)
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value")
    }
    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }
    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }
    fn visit_bool<E>(self, truth: bool) -> Result<Node, E> {
        Ok(Node::Scalar(truth.to_string()))
    }
    fn visit_i64<E>(self, number: i64) -> Result<Node, E> {
        Ok(Node::Scalar(number.to_string()))
    }
    fn visit_u64<E>(self, number: u64) -> Result<Node, E> {
        Ok(Node::Scalar(number.to_string()))
    }
    fn visit_i128<E>(self, number: i128) -> Result<Node, E> {
        Ok(Node::Scalar(number.to_string()))
    }
    fn visit_u128<E>(self, number: u128) -> Result<Node, E> {
        Ok(Node::Scalar(number.to_string()))
    }
    fn visit_f64<E>(self, number: f64) -> Result<Node, E> {
        Ok(Node::Scalar(number.to_string()))
    }
    fn visit_str<E>(self, text: &str) -> Result<Node, E> {
        Ok(Node::Scalar(text.to_owned()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Node::List(list))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Node, A::Error> {
        let mut map = Vec::new();
        while let Some(member) = members.next_entry()? {
            map.push(member);
        }
        Ok(Node::Map(map))
    }
}

/// A mapping that is being read. Whatever nobody has taken in the end is an unknown key.
struct Section<'a> {
    path: String,
    members: Vec<(String, Node)>,
    known: Vec<&'static str>,
    problems: &'a RefCell<Vec<Problem>>,
}

impl<'a> Section<'a> {
    fn key(&self, name: &str) -> String {
        let name = if may_be_secret(name) { "(a name with a $)" } else { name };
        match (self.path.as_str(), name) {
            ("", name) => name.to_owned(),
            (path, "") => path.to_owned(),
            (path, name) => format!("{path}.{}", name.escape_debug()),
        }
    }

    fn problem(&self, name: &str, message: &str) {
        let key = self.key(name);
        let problem = Problem::new(key, message);
        let mut problems = self.problems.borrow_mut();
        if !problems.contains(&problem) {
            problems.push(problem);
        }
    }

    /// `null` is the same as no such key.
    fn take(&mut self, name: &'static str) -> Option<Node> {
        self.known.push(name);
        let place = self.members.iter().position(|(key, _)| key == name)?;
        match self.members.remove(place).1 {
            Node::Null => None,
            node => Some(node),
        }
    }

    fn section(&mut self, name: &'static str) -> Section<'a> {
        let members = match self.take(name) {
            None => Vec::new(),
            Some(Node::Map(members)) => members,
            Some(_) => {
                self.problem(name, "this is not a mapping; expected keys and values");
                Vec::new()
            }
        };
        Section {
            path: self.key(name),
            members,
            known: Vec::new(),
            problems: self.problems,
        }
    }

    fn scalar(&mut self, name: &'static str) -> Option<String> {
        match self.take(name)? {
            Node::Scalar(text) => Some(text),
            _ => {
                self.problem(name, "this is a list or a mapping; expected one value");
                None
            }
        }
    }

    /// Text; empty is the same as not there.
    fn text(&mut self, name: &'static str) -> Option<String> {
        self.scalar(name).filter(|text| !text.is_empty())
    }

    fn texts(&mut self, name: &'static str) -> Option<Vec<String>> {
        const EXPECTED: &str = "this is not a list of words; expected one";
        match self.take(name)? {
            Node::List(items) => {
                let texts: Option<Vec<_>> = items.iter().map(Node::text).collect();
                if texts.is_none() {
                    self.problem(name, EXPECTED);
                }
                Some(texts.unwrap_or_default())
            }
            _ => {
                self.problem(name, EXPECTED);
                None
            }
        }
    }

    /// The words of YAML 1.1, which the toolkit reads.
    fn truth(&mut self, name: &'static str) -> Option<bool> {
        let text = self.scalar(name)?;
        match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "y" => Some(true),
            "false" | "no" | "off" | "n" => Some(false),
            _ => {
                self.problem(name, "this is not a truth value; expected true or false");
                None
            }
        }
    }

    /// The place of one of a few words.
    fn choice(&mut self, name: &'static str, words: &[&str]) -> Option<usize> {
        let text = self.text(name)?;
        let chosen = words.iter().position(|word| *word == text);
        if chosen.is_none() {
            self.problem(
                name,
                &format!("this is not known; expected one of {}", words.join(", ")),
            );
        }
        chosen
    }

    /// What stands in the file itself, or the path of a file, which wins.
    fn pem(&mut self, inline: &'static str, file: &'static str, warnings: &mut Vec<String>) -> Option<Pem> {
        let (text, path) = (self.text(inline), self.text(file));
        if text.is_some() && path.is_some() {
            warnings.push(format!("{}: left out, because {file} is there too", self.key(inline)));
        }
        match (text, path) {
            (_, Some(path)) => Some(Pem::File { key: file, path }),
            (Some(text), None) => Some(Pem::Inline {
                key: inline,
                text: text.into(),
            }),
            (None, None) => None,
        }
    }

    fn finish(self) {
        for (name, _) in &self.members {
            let known = self.known.join(", ");
            self.problem(name, &format!("this key is not known; expected one of {known}"));
        }
    }
}

#[cfg(test)]
mod tests;
