//! TLS: what must not be said without it, what it forgets, and which clients it lets in.

use std::io::Read;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use crate::support::*;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion};
use unluks::nbd::{Listener, Service, Tls};

fn server(dir: &Path, verify_peer: bool) -> Running {
    let tls = Tls::from_folder(dir, verify_peer).unwrap();
    start_service(Service::new(export()).with_tls(tls))
}

type TlsClient = Raw<StreamOwned<ClientConnection, std::os::unix::net::UnixStream>>;

/// A client whose STARTTLS was acknowledged. The TLS handshake is done with the first byte that is sent.
fn upgrade(
    s: &Running,
    dir: &Path,
    versions: &[&'static SupportedProtocolVersion],
    with_cert: Option<&Path>,
) -> TlsClient {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(dir.join("ca-cert.pem")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
    let config = config.with_root_certificates(roots);
    let config = match with_cert {
        None => config.with_no_client_auth(),
        Some(dir) => {
            let cert = CertificateDer::from_pem_file(dir.join("client-cert.pem")).unwrap();
            let key = PrivateKeyDer::from_pem_file(dir.join("client-key.pem")).unwrap();
            config.with_client_auth_cert(vec![cert], key).unwrap()
        }
    };
    let mut c = s.connect();
    c.greet(3);
    assert_eq!(c.code(STARTTLS, b""), ACK);
    let tls = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
    Raw(StreamOwned::new(tls, c.0))
}

const BOTH: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS12, &rustls::version::TLS13];

fn serves(c: &mut TlsClient) {
    c.negotiate();
    for (cookie, len) in [(1, 512), (2, 1 << 20)] {
        c.request(0, READ, cookie, 8 << 20, len);
        assert_eq!(c.read_reply(cookie, 8 << 20, len as usize), Ok(known(8 << 20, len as usize)));
    }
    c.request(0, DISC, 0, 0, 0);
    // A clean end: rustls would call a stream without close_notify cut short.
    assert_eq!(c.0.read(&mut [0; 1]).unwrap(), 0);
}

fn check_alive(s: &Running, dir: &Path) {
    serves(&mut upgrade(s, dir, &BOTH, Some(dir)));
}

#[test]
fn without_tls_there_is_nothing_but_starttls_and_abort() {
    let (dir, _) = certificates();
    let s = server(dir, false);
    let mut c = s.connect();
    c.greet(3);
    for kind in [LIST, INFO, GO, STRUCTURED_REPLY, LIST_META, SET_META, EXTENDED_HEADERS, 99] {
        assert_eq!(c.code(kind, b""), ERR_TLS_REQD, "option {kind}");
        assert_eq!(c.code(kind, &[0; 100_000]), ERR_TLS_REQD, "option {kind}");
    }
    assert_eq!(c.code(STARTTLS, b"x"), ERR_INVALID);
    assert_eq!(c.code(ABORT, b""), ACK);
    c.expect_end();
    let mut c = s.connect();
    c.greet(3);
    c.send_option(EXPORT_NAME, b"disk");
    c.expect_end();
    check_alive(&s, dir);
}

#[test]
fn both_versions_serve_and_a_second_starttls_is_refused() {
    let (dir, _) = certificates();
    let s = server(dir, false);
    for version in BOTH {
        let mut c = upgrade(&s, dir, &[version], None);
        assert_eq!(c.code(STARTTLS, b""), ERR_INVALID);
        assert_eq!(c.code(LIST, b""), ACK);
        serves(&mut c);
        check_alive(&s, dir);
    }
}

#[test]
fn the_upgrade_forgets_what_was_agreed_on() {
    // Before TLS nothing can be agreed on here, so this looks at the outcome: no structured replies, no context.
    let (dir, _) = certificates();
    let s = server(dir, false);
    let mut c = s.connect();
    c.greet(3);
    assert_eq!(c.code(STRUCTURED_REPLY, b""), ERR_TLS_REQD);
    let mut c = upgrade(&s, dir, &BOTH, None);
    assert_eq!(c.code(SET_META, &queries(b"", &[b"base:allocation"])), ERR_INVALID);
    assert_eq!(c.go(b"", &[]).last().unwrap().0, ACK);
    c.request(0, READ, 1, 0, 16);
    assert_eq!(c.simple_reply(1), 0);
    assert_eq!(c.take(16), known(0, 16));
    check_alive(&s, dir);
}

#[test]
fn bytes_from_before_tls_are_not_taken_for_bytes_through_it() {
    let (dir, _) = certificates();
    let s = server(dir, false);
    // STARTTLS and, in the same packet, an option that a man in the middle put there (CVE-2021-3716).
    let mut c = s.connect();
    c.greet(3);
    let mut bytes = [b"IHAVEOPT", &STARTTLS.to_be_bytes()[..], &string(b"")].concat();
    bytes.extend([b"IHAVEOPT", &LIST.to_be_bytes()[..], &string(b"")].concat());
    c.send(&bytes);
    assert_eq!(c.option_reply(STARTTLS), (ACK, vec![]));
    let mut rest = Vec::new();
    // At most a TLS alert comes back (21 is its record type), and never a reply to the option.
    let _ = c.0.read_to_end(&mut rest);
    assert!(rest.is_empty() || rest[0] == 21, "{rest:?}");
    check_alive(&s, dir);
}

#[test]
fn a_client_that_does_not_do_tls_after_all_is_disconnected() {
    let (dir, _) = certificates();
    let s = server(dir, false);
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0x16, 3, 1, 0xff, 0xff], &[0; 4000]] {
        let mut c = s.connect();
        c.greet(3);
        assert_eq!(c.code(STARTTLS, b""), ACK);
        c.send(bytes);
        c.0.shutdown(std::net::Shutdown::Write).unwrap();
        let mut rest = Vec::new();
        let _ = c.0.read_to_end(&mut rest);
        assert!(rest.is_empty() || rest[0] == 21, "{rest:?}");
        check_alive(&s, dir);
    }
}

#[test]
fn clients_must_show_a_certificate_where_it_is_asked_for() {
    let (dir, stranger) = certificates();
    let s = server(dir, true);
    for version in BOTH {
        for with_cert in [None, Some(stranger)] {
            let mut c = upgrade(&s, dir, &[version], with_cert);
            let refused = std::io::Write::write_all(&mut c.0, &[b"IHAVEOPT", &[0; 8][..]].concat()).is_err();
            assert!(refused || c.0.read(&mut [0; 1]).map_or(true, |n| n == 0));
            check_alive(&s, dir);
        }
    }
}

#[test]
fn real_clients_over_tls() {
    let (dir, stranger) = certificates();
    let (dir, stranger) = (dir.to_str().unwrap(), stranger.to_str().unwrap());
    for verify_peer in [false, true] {
        let tls = Tls::from_folder(Path::new(dir), verify_peer).unwrap();
        let listener = Listener::tcp("127.0.0.1:0".parse().unwrap()).unwrap();
        let port = listener.address().unwrap().port();
        let s = start_on(Service::new(export()).with_tls(tls), listener);
        let uri = |certs: &str| format!("{}?tls-certificates={certs}", s.uri);
        let info = peer_ok("libnbd-bin", Command::new("nbdinfo").arg("--json").arg(uri(dir)));
        assert!(info.contains("\"TLS\": true") && info.contains(&format!("\"export-size\": {SIZE}")), "{info}");
        let stranger = peer("libnbd-bin", Command::new("nbdinfo").arg(uri(stranger)));
        assert_eq!(stranger.status.success(), !verify_peer);
        assert!(!peer("libnbd-bin", Command::new("nbdinfo").arg(format!("nbd://127.0.0.1:{port}/"))).status.success());
        let image = format!("driver=nbd,host=127.0.0.1,port={port},export=disk,tls-creds=t");
        let creds = format!("tls-creds-x509,id=t,endpoint=client,dir={dir}");
        let map = ["qemu-img", "map", "--output=json", "--object", &creds, "--image-opts", &image];
        let map = peer_ok("qemu-utils", &mut command(map));
        assert!(map.contains("\"start\": 1048576, \"length\": 1048576"), "{map}");
    }
}

#[test]
fn a_folder_without_its_files_is_refused_by_name() {
    let (whole, _) = certificates();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    for file in ["server-cert.pem", "server-key.pem"] {
        std::fs::copy(whole.join(file), dir.join(file)).unwrap();
    }
    std::fs::write(dir.join("ca-cert.pem"), "no PEM\n").unwrap();
    let text = Tls::from_folder(dir, true).err().unwrap().to_string();
    assert!(text.contains("ca-cert.pem"), "{text}");
    assert!(Tls::from_folder(dir, false).is_ok());
    std::fs::remove_file(dir.join("server-key.pem")).unwrap();
    let text = Tls::from_folder(dir, false).err().unwrap().to_string();
    assert!(text.contains("server-key.pem") && text.contains("a folder with"), "{text}");
}
