use super::*;

/// `secret`, at the smallest cost.
fn hash(cost: u32) -> String {
    let hash = bcrypt::hash_with_salt("secret", 4, [7; 16]).unwrap().to_string();
    format!("$2y${cost:02}{}", &hash[6..])
}

fn read_well(text: &str) -> WebConfig {
    read(text).unwrap_or_else(|problems| panic!("{problems:?}\n{text}"))
}

fn check(text: &str, expected: &[&str]) {
    let problems: Vec<_> = read(text).err().unwrap_or_default();
    let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(problems, expected, "{text}");
}

#[test]
fn a_file_without_anything_protects_nothing() {
    for text in [
        "",
        "# nothing\n",
        "{}",
        "tls_server_config:\nbasic_auth_users: {}\n",
        "---\n",
    ] {
        let config = read_well(text);
        assert!(
            config.tls.is_none() && config.users.is_empty() && config.http2,
            "{text:?}"
        );
        assert_eq!(config.warnings, [] as [&str; 0]);
    }
}

#[test]
fn everything_that_the_format_has_is_read() {
    let text = format!(
        "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n  client_auth_type: RequireAndVerifyClientCert\n  \
         client_ca_file: ca.crt\n  client_allowed_sans: [a.example, 192.0.2.1]\n  min_version: TLS12\n  max_version: TLS13\n  \
         cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, TLS_AES_128_GCM_SHA256]\n  \
         prefer_server_cipher_suites: no\n  curve_preferences: [CurveP384, X25519]\n\
         http_server_config:\n  http2: off\n  headers:\n    X-Frame-Options: deny\n    X-XSS-Protection: 0\n    \
         Strict-Transport-Security: ''\n\
         basic_auth_users:\n  alice: {}\n  123: {}\n  true: {}\n\
         rate_limit: {{ interval: 1m1.5s, burst: 3 }}\n",
        hash(10),
        hash(4),
        hash(14),
    );
    let config = read_well(&text);
    let tls = config.tls.unwrap();
    assert!(matches!(&tls.certificate, Pem::File { path, .. } if path == "server.crt"));
    assert_eq!(tls.client_auth, ClientAuth::RequireAndVerify);
    assert_eq!(tls.client_allowed_sans.unwrap(), ["a.example", "192.0.2.1"]);
    assert!(!tls.prefer_server_cipher_suites && !config.http2);
    let suites: Vec<_> = tls.cipher_suites.iter().map(|suite| go_name(*suite)).collect();
    let expected = [
        "TLS_AES_256_GCM_SHA384",
        "TLS_AES_128_GCM_SHA256",
        "TLS_CHACHA20_POLY1305_SHA256",
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    ];
    assert_eq!(suites, expected, "TLS 1.3 is not configurable");
    let curves: Vec<_> = tls.curves.iter().map(|curve| format!("{:?}", curve.name())).collect();
    assert_eq!(curves, ["secp384r1", "X25519"]);
    let headers: Vec<_> = config
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
        .collect();
    assert_eq!(headers, [("x-frame-options", "deny"), ("x-xss-protection", "0")]);
    assert_eq!(config.users.keys().collect::<Vec<_>>(), ["123", "alice", "true"]);
    let limit = config.rate_limit.unwrap();
    assert_eq!((limit.interval, limit.burst.get()), (Duration::from_millis(61_500), 3));
    assert_eq!(config.warnings, [] as [&str; 0]);
}

#[test]
fn each_problem_names_its_key_and_what_was_expected() {
    let known = "expected one of tls_server_config, http_server_config, basic_auth_users, rate_limit";
    check("a: 1", &[&format!("a: this key is not known; {known}")]);
    check(
        "[a]",
        &["the file is not a mapping; expected tls_server_config, basic_auth_users and the like"],
    );
    check(
        "tls_server_config: { cert_file: a }\nhttp_server_config: { http2: 2, headers: { Server: x, X-Frame-Options: '' } }",
        &[
            "tls_server_config.key_file: there is no key; expected the path of a PEM file (or key)",
            "http_server_config.http2: this is not a truth value; expected true or false",
            "http_server_config.headers.X-Frame-Options: this cannot be said with it; expected deny or sameorigin",
            "http_server_config.headers.Server: this key is not known; expected one of Strict-Transport-Security, \
             X-Content-Type-Options, X-Frame-Options, X-XSS-Protection, Content-Security-Policy",
        ],
    );
    check(
        "tls_server_config: 5",
        &["tls_server_config: this is not a mapping; expected keys and values"],
    );
    let tls = |more: &str| format!("tls_server_config: {{ cert_file: a, key_file: b, {more} }}");
    let auth = "NoClientCert, RequestClientCert, RequireAnyClientCert, RequireClientCert, VerifyClientCertIfGiven, \
                RequireAndVerifyClientCert";
    check(
        &tls("client_auth_type: Sometimes"),
        &[&format!(
            "tls_server_config.client_auth_type: this is not known; expected one of {auth}"
        )],
    );
    check(
        &tls("client_auth_type: RequireAndVerifyClientCert"),
        &[
            "tls_server_config.client_ca_file: there is nothing to verify clients with; expected the path of a PEM file (or client_ca)",
        ],
    );
    check(
        &tls("client_ca_file: c"),
        &[
            "tls_server_config.client_auth_type: a client CA does nothing without it; expected RequireAndVerifyClientCert",
        ],
    );
    check(
        &tls("client_ca_file: c, client_auth_type: VerifyClientCertIfGiven, client_allowed_sans: [x]"),
        &[
            "tls_server_config.client_allowed_sans: no client has to show a certificate; expected client_auth_type \
             RequireAndVerifyClientCert",
        ],
    );
    check(
        &tls("min_version: TLS13, max_version: TLS12"),
        &["tls_server_config.min_version: it is above max_version; expected at most that"],
    );
    check(
        &tls("max_version: TLS11"),
        &["tls_server_config.max_version: nothing older than TLS 1.2 is spoken; expected TLS12 or TLS13"],
    );
    check(
        &tls("min_version: SSL30"),
        &["tls_server_config.min_version: this is not known; expected one of TLS10, TLS11, TLS12, TLS13"],
    );
    check(
        &tls("cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA], max_version: TLS12"),
        &[
            "tls_server_config.cipher_suites: none of them is spoken here with TLS 1.2; expected one such as \
             TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        ],
    );
    let suites = "expected names such as TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256";
    check(
        &tls("cipher_suites: [TLS_AES_128_GCM_SHA256, TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA265, $2y$10$secret]"),
        &[
            &format!("tls_server_config.cipher_suites: TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA265 is not known; {suites}"),
            &format!("tls_server_config.cipher_suites: entry 3 is not known; {suites}"),
        ],
    );
    check(
        &tls("curve_preferences: [X25519, CurveP255]"),
        &["tls_server_config.curve_preferences: CurveP255 is not known; expected X25519, CurveP256 or CurveP384"],
    );
    check(
        &tls("curve_preferences: CurveP256"),
        &["tls_server_config.curve_preferences: this is not a list of words; expected one"],
    );
    check(
        "rate_limit: { interval: 1 s, burst: x }",
        &[
            "rate_limit.interval: this is not a duration; expected one such as 100ms, 1s or 1m30s",
            "rate_limit.burst: this is not a whole number of requests; expected 1 or more",
        ],
    );
    check(
        "rate_limit: { interval: 1s }",
        &["rate_limit.burst: no request would ever be answered; expected 1 or more"],
    );
}

#[test]
fn a_password_is_never_repeated_and_never_costs_more_than_a_second() {
    let users = |hash: &str| format!("basic_auth_users: {{ alice: '{hash}' }}");
    let not_a_hash = "basic_auth_users.alice: this is not a bcrypt hash; expected what `htpasswd -nBC 10 NAME` prints after the colon";
    for hash in [
        "hunter2",
        "",
        "$2y$10$tooshort",
        "$1$abc$def",
        "$2y$03$X0h1gDsPszWURQaxFh.zoubFi6DXncSjhoQNJgRrnGs7EsimhC7zG",
    ] {
        check(&users(hash), &[not_a_hash]);
    }
    check("basic_auth_users: { alice: [a] }", &[not_a_hash]);
    check(
        &users(&hash(15)),
        &["basic_auth_users.alice: its bcrypt cost is 15, and each check would take seconds; expected at most 14"],
    );
    check(
        &format!("basic_auth_users: {{ 'a:b': '{}' }}", hash(4)),
        &["basic_auth_users.a:b: a user's name cannot hold a colon: HTTP could not tell where it ends"],
    );
    // The one of the toolkit's document.
    let config = read_well(&users("$2y$10$X0h1gDsPszWURQaxFh.zoubFi6DXncSjhoQNJgRrnGs7EsimhC7zG"));
    assert_eq!(
        config.warnings,
        ["basic_auth_users without TLS: passwords are sent in plain text"]
    );
    let twice = format!("basic_auth_users:\n  alice: {0}\n  alice: {0}\n", hash(4));
    let problem = read(&twice).unwrap_err().remove(0).to_string();
    assert!(problem.contains("twice") && !problem.contains("$2y$"), "{problem}");
    let problem = read("basic_auth_users:\n  alice: $2y$04\n bob: hunter2\n")
        .unwrap_err()
        .remove(0)
        .to_string();
    assert!(
        problem.contains("not readable as YAML") && !problem.contains("hunter2"),
        "{problem}"
    );
}

#[test]
fn a_hash_in_the_place_of_a_name_is_not_shown() {
    let hash = "$2y$10$X0h1gDsPszWURQaxFh.zoubFi6DXncSjhoQNJgRrnGs7EsimhC7zG";
    for text in [
        format!("{hash}: a\n"),
        format!("tls_server_config:\n  cert_file: a\n  key_file: b\n  key_f{hash}: c\n"),
        format!("tls_server_config: {{ cert_file: a, key_file: b, cipher_suites: [TLS_{hash}] }}\n"),
        "tls_server_config: { cert_file: a, key_file: b, curve_preferences: [Curve$2y] }\n".to_owned(),
        format!("http_server_config:\n  headers:\n    {hash}: c\n"),
        format!("basic_auth_users:\n  {hash}: alice\n"),
    ] {
        let problems = read(&text).unwrap_err();
        let shown: Vec<_> = problems.iter().map(ToString::to_string).collect();
        assert!(!shown.concat().contains("$2"), "{shown:?}");
    }
}

#[test]
fn what_does_nothing_here_is_said_and_not_refused() {
    let check = |more: &str, expected: &str| {
        let config = read_well(&format!("tls_server_config: {{ cert_file: a, key_file: b, {more} }}"));
        assert_eq!(config.warnings, [expected], "{more}");
    };
    check(
        "cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA, TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]",
        "tls_server_config.cipher_suites: not spoken here, and left out: TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    );
    check(
        "curve_preferences: [CurveP521, X25519]",
        "tls_server_config.curve_preferences: CurveP521 is not spoken here, and left out",
    );
    check(
        "min_version: TLS10",
        "tls_server_config.min_version: the oldest version that is spoken here is TLS12",
    );
    check(
        "cert: x",
        "tls_server_config.cert: left out, because cert_file is there too",
    );
    let config = read_well("tls_server_config: { min_version: TLS13 }");
    assert_eq!(
        config.warnings,
        ["tls_server_config has no certificate: this is served without TLS"]
    );
}

#[test]
fn durations_are_read_as_go_reads_them() {
    let check = |text: &str, expected: Option<u64>| {
        assert_eq!(go_duration(text), expected.map(Duration::from_nanos), "{text}");
    };
    check("0", Some(0));
    check("1000", Some(1000));
    check("0s", Some(0));
    check("1s", Some(1_000_000_000));
    check("1.5ms", Some(1_500_000));
    check("2h1m", Some(7_260_000_000_000));
    check("+3us", Some(3_000));
    for text in [
        "",
        "1",
        "-1s",
        "1d",
        "s",
        ".s",
        "1s ",
        "1..5s",
        "99999999999999h",
        "1e9s",
    ] {
        check(text, if text == "1" { Some(1) } else { None });
    }
}
