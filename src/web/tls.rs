//! TLS as the web configuration wants it: settings and PEM text in, a server's configuration out. Never opens a file.

use std::net::IpAddr;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig, SignatureScheme,
};
use x509_cert::Certificate;
use x509_cert::der::Decode as _;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use super::config::{ClientAuth, Tls};

/// The protocols that are offered after the handshake.
const HTTP2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// The PEM text of everything that the settings name.
pub(super) struct Material {
    pub(super) certificate: Vec<u8>,
    pub(super) key: Vec<u8>,
    pub(super) client_ca: Option<Vec<u8>>,
}

/// Which of the three is wrong, and how.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    Certificate(&'static str),
    Key(&'static str),
    ClientCa(&'static str),
    /// The parts do not go together.
    Whole(String),
}

/// The server's side of a handshake.
pub(super) fn server_config(tls: &Tls, material: &Material, http2: bool) -> Result<ServerConfig, Wrong> {
    let provider = Arc::new(CryptoProvider {
        cipher_suites: tls.cipher_suites.clone(),
        kx_groups: tls.curves.clone(),
        ..ring::default_provider()
    });
    let chain = certificates(&material.certificate).ok_or(Wrong::Certificate(
        "there is no certificate in it; expected PEM, the server's own first",
    ))?;
    let key = PrivateKeyDer::from_pem_slice(&material.key)
        .map_err(|_| Wrong::Key("there is no private key in it; expected PEM, without a password"))?;
    let whole = |error: Error| Wrong::Whole(error.to_string().to_lowercase());
    let verifier = client_verifier(tls, material, &provider)?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&tls.versions)
        .map_err(whole)?;
    let builder = match verifier {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|error| match error {
        Error::InconsistentKeys(_) => {
            Wrong::Key("it does not belong to the certificate; expected the certificate's own")
        }
        Error::InvalidCertificate(_) => {
            Wrong::Certificate("the first one cannot be read; expected an X.509 certificate")
        }
        Error::General(_) => Wrong::Key("it cannot be used; expected an RSA, ECDSA or Ed25519 key"),
        other => whole(other),
    })?;
    config.ignore_client_order = tls.prefer_server_cipher_suites;
    config.alpn_protocols = if http2 {
        vec![HTTP2.to_vec(), HTTP1.to_vec()]
    } else {
        vec![HTTP1.to_vec()]
    };
    Ok(config)
}

/// Whether a handshake has ended with HTTP/2.
pub(super) fn is_http2(connection: &rustls::ServerConnection) -> bool {
    connection.alpn_protocol() == Some(HTTP2)
}

fn certificates(pem: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    chain.ok().filter(|chain| !chain.is_empty())
}

fn client_verifier(
    tls: &Tls,
    material: &Material,
    provider: &Arc<CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, Wrong> {
    let mut roots = RootCertStore::empty();
    if let Some(pem) = &material.client_ca {
        let authorities = certificates(pem).ok_or(Wrong::ClientCa("there is no certificate in it; expected PEM"))?;
        for authority in authorities {
            roots
                .add(authority)
                .map_err(|_| Wrong::ClientCa("one of its certificates cannot be read; expected X.509 certificates"))?;
        }
    }
    let verified = |is_required: bool| {
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots.clone()), Arc::clone(provider));
        let builder = if is_required {
            builder
        } else {
            builder.allow_unauthenticated()
        };
        let verifier = builder
            .build()
            .map_err(|error| Wrong::Whole(error.to_string().to_lowercase()))?;
        Ok(verifier as Arc<dyn ClientCertVerifier>)
    };
    let unverified = |is_required| -> Arc<dyn ClientCertVerifier> {
        Arc::new(AnyCertificate {
            is_required,
            provider: Arc::clone(provider),
        })
    };
    let verifier = match tls.client_auth {
        ClientAuth::None => return Ok(None),
        ClientAuth::Request => unverified(false),
        ClientAuth::RequireAny => unverified(true),
        ClientAuth::VerifyIfGiven => verified(false)?,
        ClientAuth::RequireAndVerify => verified(true)?,
    };
    Ok(Some(match &tls.client_allowed_sans {
        Some(allowed) => Arc::new(Named {
            inner: verifier,
            allowed: allowed.clone(),
        }),
        None => verifier,
    }))
}

/// Takes any certificate: a client only proves that it has the key.
#[derive(Debug)]
struct AnyCertificate {
    is_required: bool,
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for AnyCertificate {
    fn client_auth_mandatory(&self) -> bool {
        self.is_required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Takes what another verifier takes, if one of the certificate's names is on the list.
#[derive(Debug)]
struct Named {
    inner: Arc<dyn ClientCertVerifier>,
    allowed: Vec<String>,
}

impl ClientCertVerifier for Named {
    fn client_auth_mandatory(&self) -> bool {
        self.inner.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.inner.verify_client_cert(certificate, intermediates, now)?;
        if names(certificate).iter().any(|name| self.allowed.contains(name)) {
            Ok(verified)
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// The alternative names of a certificate as the toolkit writes them: DNS, e-mail, IP, URI. None if it cannot be read.
pub(super) fn names(certificate: &[u8]) -> Vec<String> {
    let Ok(certificate) = Certificate::from_der(certificate) else {
        return Vec::new();
    };
    let Ok(Some((_, SubjectAltName(names)))) = certificate.tbs_certificate().get_extension::<SubjectAltName>() else {
        return Vec::new();
    };
    let name = |name: &GeneralName| match name {
        GeneralName::DnsName(text) | GeneralName::Rfc822Name(text) | GeneralName::UniformResourceIdentifier(text) => {
            Some(text.as_str().to_owned())
        }
        GeneralName::IpAddress(bytes) => {
            let bytes = bytes.as_bytes();
            let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
            let v6 = <[u8; 16]>::try_from(bytes).map(IpAddr::from);
            v4.or(v6).ok().map(|address| address.to_canonical().to_string())
        }
        _ => None,
    };
    names.iter().filter_map(name).collect()
}
