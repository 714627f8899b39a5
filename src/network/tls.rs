//! TLS 1.3 with raw ed25519 public keys (RFC 7250) on both sides: a peer is its key, so there is no
//! certificate, no authority, no name and no expiry.
//!
//! Invariants: both sides prove their key; the only signature scheme is ed25519, checked by the one
//! rule of the network; nothing is resumed and no early data is accepted, so every connection proves
//! the key anew. The protocol version is part of the negotiated application protocol, hence peers of
//! different versions part before either reads a byte of the other's.

use crate::primitives::keys::{PublicKey, SecretKey, Signature};
use crate::primitives::message::PeerId;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, SignatureScheme};
use std::sync::Arc;

/// What precedes the 32 key bytes in a SubjectPublicKeyInfo of ed25519 (RFC 8410 §4).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// What precedes the 32 seed bytes in a PKCS #8 private key of ed25519 (RFC 8410 §7).
const PKCS8_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// Name given to TLS, which insists on one; it is neither sent nor checked.
pub const SERVER_NAME: &str = "masternode";

/// TLS could not be set up from this key.
#[derive(Debug, thiserror::Error)]
#[error("the transport key cannot be used for tls 1.3: {0}")]
pub struct TlsError(String);

impl TlsError {
    fn new(error: &impl std::fmt::Display) -> Self {
        Self(error.to_string())
    }
}

/// Both sides' configuration for one key and one application protocol.
pub struct TlsConfigs {
    /// For connections dialled.
    pub client: Arc<QuicClientConfig>,
    /// For connections accepted.
    pub server: Arc<QuicServerConfig>,
}

/// Makes the configuration of a node.
///
/// # Errors
/// [`TlsError`] when the cryptographic provider refuses the key or lacks TLS 1.3.
pub fn configure(key: &SecretKey, protocol: &[u8]) -> Result<TlsConfigs, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let certified = certify(key)?;

    let mut client =
        rustls::ClientConfig::builder_with_provider(Arc::<CryptoProvider>::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| TlsError::new(&error))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(RawKey))
            .with_client_cert_resolver(Arc::new(rustls::client::AlwaysResolvesClientRawPublicKeys::new(
                Arc::<CertifiedKey>::clone(&certified),
            )));
    client.alpn_protocols = vec![protocol.to_vec()];
    client.resumption = rustls::client::Resumption::disabled();
    client.enable_sni = false;

    let mut server = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| TlsError::new(&error))?
        .with_client_cert_verifier(Arc::new(RawKey))
        .with_cert_resolver(Arc::new(rustls::server::AlwaysResolvesServerRawPublicKeys::new(certified)));
    server.alpn_protocols = vec![protocol.to_vec()];
    server.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    server.send_tls13_tickets = 0;

    Ok(TlsConfigs {
        client: Arc::new(QuicClientConfig::try_from(client).map_err(|error| TlsError::new(&error))?),
        server: Arc::new(QuicServerConfig::try_from(server).map_err(|error| TlsError::new(&error))?),
    })
}

/// The key pair in the form rustls wants it.
fn certify(key: &SecretKey) -> Result<Arc<CertifiedKey>, TlsError> {
    let spki = [SPKI_PREFIX.as_slice(), &key.public().0].concat();
    let seed = key.seed();
    let pkcs8 = zeroize::Zeroizing::new([PKCS8_PREFIX.as_slice(), seed.as_slice()].concat());
    let signer = rustls::crypto::ring::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(pkcs8.as_slice()))
        .map_err(|error| TlsError::new(&error))?;
    Ok(Arc::new(CertifiedKey::new(vec![CertificateDer::from(spki)], signer)))
}

/// The key in a SubjectPublicKeyInfo, which has exactly one form.
fn parse_spki(spki: &[u8]) -> Option<PublicKey> {
    spki.strip_prefix(SPKI_PREFIX.as_slice())?.try_into().ok().map(PublicKey)
}

/// Who is at the other end of a connection whose TLS handshake is complete.
#[must_use]
pub fn peer_of(connection: &quinn::Connection) -> Option<PeerId> {
    let identity = connection.peer_identity()?;
    let keys = identity.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    match keys.as_slice() {
        [key] => parse_spki(key).map(PeerId),
        _ => None,
    }
}

/// Accepts any ed25519 key whose holder proves it; whether the holder is welcome is for the
/// application handshake.
#[derive(Debug)]
struct RawKey;

impl RawKey {
    fn check_key(spki: &CertificateDer<'_>, further: &[CertificateDer<'_>]) -> Result<(), rustls::Error> {
        match (parse_spki(spki), further.is_empty()) {
            (Some(_), true) => Ok(()),
            _ => Err(rustls::Error::InvalidCertificate(CertificateError::BadEncoding)),
        }
    }

    fn check_signature(
        message: &[u8],
        spki: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let key = parse_spki(spki).ok_or(CertificateError::BadEncoding)?;
        let signature: [u8; 64] =
            signed.signature().try_into().map_err(|_| CertificateError::BadSignature)?;
        if signed.scheme == SignatureScheme::ED25519 && key.verify_message(message, &Signature(signature)) {
            Ok(HandshakeSignatureValid::assertion())
        } else {
            Err(CertificateError::BadSignature.into())
        }
    }

    fn no_tls12() -> rustls::Error {
        rustls::Error::General("tls 1.2 is not offered".to_owned())
    }
}

impl ServerCertVerifier for RawKey {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Self::check_key(end_entity, intermediates).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(Self::no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Self::check_signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for RawKey {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Self::check_key(end_entity, intermediates).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(Self::no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Self::check_signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
