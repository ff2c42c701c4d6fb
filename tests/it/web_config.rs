//! Web configurations, good and bad: what we say of each, and what `promtool check web-config` says.

use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;
use testrun_exporter::web::access::Access;

use crate::certificates::Authority;
use crate::prometheus::installed;
use crate::web::hash;

/// What promtool says.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Promtool {
    /// The same as we do.
    Agrees,
    /// Something else, because ...
    Differs(&'static str),
    /// Old versions something else, because ...
    OldDiffers(&'static str),
    /// New versions something else, because ...
    NewDiffers(&'static str),
}
use Promtool::{Agrees, Differs, NewDiffers, OldDiffers};

/// The version from which on promtool is not old: the one where the toolkit knows all keys that we know.
const NEW: u32 = 3;

const GOOD: bool = true;
const BAD: bool = false;

/// Name, verdict, promtool's, and the file. `{crt}` and so on stand for what is in the directory.
const TABLE: &[(&str, bool, Promtool, &str)] = &[
    ("empty", GOOD, Agrees, ""),
    ("a comment", GOOD, Agrees, "# nothing\n"),
    ("an empty mapping", GOOD, Agrees, "{}"),
    (
        "null sections",
        GOOD,
        Agrees,
        "tls_server_config:\nhttp_server_config:\nbasic_auth_users:\n",
    ),
    ("a list", BAD, Agrees, "[a]"),
    ("no YAML", BAD, Agrees, "a: [b"),
    ("an unknown section", BAD, Agrees, "tls_config: {}"),
    ("an unknown key", BAD, Agrees, "tls_server_config: { certfile: x }"),
    (
        "a key twice",
        BAD,
        Agrees,
        "http_server_config: { http2: true }\nhttp_server_config: { http2: true }\n",
    ),
    (
        "TLS",
        GOOD,
        Agrees,
        "tls_server_config: { cert_file: server.crt, key_file: server.key }",
    ),
    (
        "TLS inline",
        GOOD,
        OldDiffers("cert and key are newer"),
        "tls_server_config: { cert: {crt}, key: {key} }",
    ),
    (
        "both, file and inline",
        GOOD,
        OldDiffers("cert is newer"),
        "tls_server_config: { cert: x, cert_file: server.crt, key_file: server.key }",
    ),
    ("no key", BAD, Agrees, "tls_server_config: { cert_file: server.crt }"),
    (
        "no certificate",
        BAD,
        Agrees,
        "tls_server_config: { key_file: server.key }",
    ),
    (
        "empty paths",
        GOOD,
        Agrees,
        "tls_server_config: { cert_file: '', key_file: '' }",
    ),
    (
        "a certificate that is not there",
        BAD,
        Agrees,
        "tls_server_config: { cert_file: none.crt, key_file: server.key }",
    ),
    (
        "a key that is not there",
        BAD,
        Agrees,
        "tls_server_config: { cert_file: server.crt, key_file: none.key }",
    ),
    (
        "a foreign key",
        BAD,
        Agrees,
        "tls_server_config: { cert_file: server.crt, key_file: other.key }",
    ),
    (
        "a key for a certificate",
        BAD,
        Agrees,
        "tls_server_config: { cert_file: server.key, key_file: server.key }",
    ),
    (
        "only a version",
        GOOD,
        Agrees,
        "tls_server_config: { min_version: TLS13 }",
    ),
    (
        "versions",
        GOOD,
        Agrees,
        "tls_server_config: { {files}, min_version: TLS12, max_version: TLS13 }",
    ),
    (
        "TLS 1.0 as the least",
        GOOD,
        Agrees,
        "tls_server_config: { {files}, min_version: TLS10 }",
    ),
    (
        "an invented version",
        BAD,
        Agrees,
        "tls_server_config: { {files}, min_version: TLS14 }",
    ),
    (
        "versions the wrong way round",
        BAD,
        Differs("no handshake can succeed; promtool does not look"),
        "tls_server_config: { {files}, min_version: TLS13, max_version: TLS12 }",
    ),
    (
        "TLS 1.1 as the most",
        BAD,
        Differs("it is not spoken here"),
        "tls_server_config: { {files}, max_version: TLS11 }",
    ),
    (
        "suites",
        GOOD,
        Agrees,
        "tls_server_config: { {files}, cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256, TLS_AES_128_GCM_SHA256] }",
    ),
    (
        "suites with CBC",
        GOOD,
        Agrees,
        "tls_server_config: { {files}, cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA] }",
    ),
    (
        "no suites",
        GOOD,
        Agrees,
        "tls_server_config: { {files}, cipher_suites: [] }",
    ),
    (
        "an invented suite",
        BAD,
        Agrees,
        "tls_server_config: { {files}, cipher_suites: [TLS_NULL] }",
    ),
    (
        "only CBC with TLS 1.2",
        BAD,
        Differs("it is not spoken here"),
        "tls_server_config: { {files}, max_version: TLS12, cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA] }",
    ),
    (
        "curves",
        GOOD,
        Agrees,
        "tls_server_config: { {files}, curve_preferences: [X25519, CurveP256, CurveP384, CurveP521] }",
    ),
    (
        "an invented curve",
        BAD,
        Agrees,
        "tls_server_config: { {files}, curve_preferences: [CurveP257] }",
    ),
    (
        "only CurveP521",
        BAD,
        Differs("it is not spoken here"),
        "tls_server_config: { {files}, curve_preferences: [CurveP521] }",
    ),
    (
        "the server's order",
        GOOD,
        Agrees,
        "tls_server_config: { {files}, prefer_server_cipher_suites: no }",
    ),
    (
        "a wrong truth value",
        BAD,
        Agrees,
        "tls_server_config: { {files}, prefer_server_cipher_suites: maybe }",
    ),
    (
        "NoClientCert",
        GOOD,
        Agrees,
        "tls_server_config: { {files}, client_auth_type: NoClientCert }",
    ),
    (
        "RequestClientCert",
        GOOD,
        Agrees,
        "tls_server_config: { {files}, client_auth_type: RequestClientCert }",
    ),
    (
        "RequireAnyClientCert",
        GOOD,
        Agrees,
        "tls_server_config: { {files}, client_auth_type: RequireAnyClientCert }",
    ),
    (
        "RequireClientCert, the old word",
        GOOD,
        Agrees,
        "tls_server_config: { {files}, client_auth_type: RequireClientCert }",
    ),
    (
        "VerifyClientCertIfGiven",
        GOOD,
        Agrees,
        "tls_server_config: { {files}, client_auth_type: VerifyClientCertIfGiven, client_ca_file: ca.crt }",
    ),
    (
        "RequireAndVerifyClientCert",
        GOOD,
        Agrees,
        "tls_server_config: { {files}, client_auth_type: RequireAndVerifyClientCert, client_ca_file: ca.crt }",
    ),
    (
        "an invented policy",
        BAD,
        Agrees,
        "tls_server_config: { {files}, client_auth_type: Sometimes }",
    ),
    (
        "verifying with nothing",
        BAD,
        Differs("any certificate of a public authority would do"),
        "tls_server_config: { {files}, client_auth_type: RequireAndVerifyClientCert }",
    ),
    (
        "an authority without a policy",
        BAD,
        Agrees,
        "tls_server_config: { {files}, client_ca_file: ca.crt }",
    ),
    (
        "an authority that is not there",
        BAD,
        Agrees,
        "tls_server_config: { {files}, client_auth_type: RequireAndVerifyClientCert, client_ca_file: none.crt }",
    ),
    (
        "an authority without a certificate",
        BAD,
        Differs("the newest toolkit agrees, those of today's distributions ignore it"),
        "tls_server_config: { {files}, client_auth_type: RequireAndVerifyClientCert, client_ca_file: server.key }",
    ),
    (
        "names",
        GOOD,
        OldDiffers("client_allowed_sans is newer"),
        "tls_server_config: { {files}, client_auth_type: RequireAndVerifyClientCert, client_ca_file: ca.crt, client_allowed_sans: [a.example, 192.0.2.1] }",
    ),
    (
        "names for nobody",
        BAD,
        NewDiffers("the newest toolkit agrees, those of today's distributions ignore it"),
        "tls_server_config: { {files}, client_allowed_sans: [a.example] }",
    ),
    (
        "HTTP/2",
        GOOD,
        Agrees,
        "tls_server_config: { {files} }\nhttp_server_config: { http2: false }",
    ),
    (
        "headers",
        GOOD,
        Agrees,
        "http_server_config: { headers: { X-Frame-Options: deny, X-XSS-Protection: 0, Content-Security-Policy: '' } }",
    ),
    (
        "a header of one's own",
        BAD,
        Agrees,
        "http_server_config: { headers: { X-Own: a } }",
    ),
    (
        "a header with a wrong value",
        BAD,
        Agrees,
        "http_server_config: { headers: { X-Frame-Options: maybe } }",
    ),
    (
        "users",
        GOOD,
        Agrees,
        "basic_auth_users: { alice: {hash}, 123: {hash} }",
    ),
    (
        "a password in plain text",
        BAD,
        Agrees,
        "basic_auth_users: { alice: hunter2 }",
    ),
    (
        "a costly password",
        BAD,
        Differs("each check would take seconds"),
        "basic_auth_users: { alice: {costly} }",
    ),
    (
        "a name with a colon",
        BAD,
        Differs("nobody could log in with it"),
        "basic_auth_users: { 'a:b': {hash} }",
    ),
    ("a list of users", BAD, Agrees, "basic_auth_users: [alice]"),
    (
        "a rate limit",
        GOOD,
        OldDiffers("rate_limit is newer"),
        "rate_limit: { interval: 1m30s, burst: 20 }",
    ),
    (
        "a rate limit that is off",
        GOOD,
        OldDiffers("rate_limit is newer"),
        "rate_limit: { interval: 0, burst: 0 }",
    ),
    (
        "a wrong interval",
        BAD,
        Agrees,
        "rate_limit: { interval: soon, burst: 1 }",
    ),
    (
        "a wrong burst",
        BAD,
        Agrees,
        "rate_limit: { interval: 1s, burst: many }",
    ),
    (
        "a burst of nothing",
        BAD,
        NewDiffers("nobody would be answered"),
        "rate_limit: { interval: 1s }",
    ),
];

/// A directory with everything that the table's files name.
struct Workshop {
    directory: TempDir,
    replacements: [(&'static str, String); 5],
}

impl Workshop {
    fn new() -> Self {
        let authority = Authority::new();
        let (server, other) = (authority.server(), authority.server());
        let directory = TempDir::new().unwrap();
        for (name, content) in [
            ("server.crt", &server.certificate),
            ("server.key", &server.key),
            ("other.key", &other.key),
            ("ca.crt", &authority.pem()),
        ] {
            fs::write(directory.path().join(name), content).unwrap();
        }
        let quoted = |text: &str| format!("{text:?}");
        let costly = hash("secret", 4).replacen("$04$", "$17$", 1);
        let replacements = [
            ("{files}", "cert_file: server.crt, key_file: server.key".to_owned()),
            ("{crt}", quoted(&server.certificate)),
            ("{key}", quoted(&server.key)),
            ("{hash}", quoted(&hash("secret", 4))),
            ("{costly}", quoted(&costly)),
        ];
        Self {
            directory,
            replacements,
        }
    }

    /// Writes a row's file.
    fn file(&self, text: &str) -> std::path::PathBuf {
        let mut text = text.to_owned();
        for (word, replacement) in &self.replacements {
            text = text.replace(word, replacement);
        }
        let path = self.directory.path().join("web.yml");
        fs::write(&path, text).unwrap();
        path
    }
}

#[test]
fn every_file_of_the_table_gets_the_verdict_that_stands_there() {
    let workshop = Workshop::new();
    for (name, expected, _, text) in TABLE {
        let problems = Access::check(&workshop.file(text)).problems;
        assert_eq!(problems.is_empty(), *expected, "{name}: {problems:?}\n{text}");
        for problem in problems {
            let shown = problem.to_string();
            assert!(
                shown.contains("expected") || shown.contains("could not tell"),
                "{name} does not say what was expected: {shown}"
            );
        }
    }
}

#[test]
fn the_file_that_the_document_shows_is_a_good_one() {
    let document = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/web-configuration.md");
    let document = fs::read_to_string(document).unwrap();
    let shown = document
        .split("```yaml\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next());
    let problems = Access::check(&Workshop::new().file(shown.unwrap())).problems;
    assert!(problems.is_empty(), "{problems:?}");
}

/// The first number of `promtool, version 2.42.0`.
fn major(promtool: &Path) -> u32 {
    let output = Command::new(promtool).arg("--version").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    let number = said.split("version ").nth(1).and_then(|rest| rest.split('.').next());
    number.unwrap().parse().unwrap()
}

#[test]
#[ignore = "needs Prometheus: see CONTRIBUTING"]
fn promtool_says_the_same_but_where_the_table_names_the_difference() {
    let workshop = Workshop::new();
    let mut wrong = Vec::new();
    for installed in installed() {
        let is_old = major(&installed.promtool) < NEW;
        for (name, ours, promtool, text) in TABLE {
            let file = workshop.file(text);
            let output = Command::new(&installed.promtool)
                .args(["check", "web-config"])
                .arg(&file)
                .output()
                .unwrap();
            let theirs = output.status.success();
            let expected = match promtool {
                Agrees => *ours,
                Differs(_) => !ours,
                OldDiffers(_) => *ours != is_old,
                NewDiffers(_) => *ours == is_old,
            };
            if theirs != expected {
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                wrong.push(format!("{} of {name}: {theirs} {said}", installed.promtool.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
