//! The handshake, line by line of the protocol, by a client that sends raw bytes. After each probe the server must
//! still serve.

use std::time::{Duration, Instant};

use crate::support::*;
use unluks::nbd::Service;

#[test]
fn unknown_client_flags_end_the_connection() {
    let s = start();
    for flags in [4, 7, 1 << 16, 1 << 31, u32::MAX] {
        let mut c = s.connect();
        c.greet(flags);
        c.expect_end();
        s.check_alive();
    }
}

#[test]
fn export_name_ends_with_zeroes_unless_both_agree() {
    let s = start();
    for (flags, zeroes) in [(1, 124), (3, 0)] {
        for name in [&b"disk"[..], b""] {
            let mut c = s.connect();
            c.greet(flags);
            c.send_option(EXPORT_NAME, name);
            assert_eq!(c.u64(), SIZE);
            let flags = c.u16();
            assert_eq!(flags & 0b1111_1111, 0b0000_0111, "HAS_FLAGS, READ_ONLY, SEND_FLUSH; no FUA, TRIM, ZEROES, DF");
            assert_eq!(flags >> 8, 0b101, "CAN_MULTI_CONN and SEND_CACHE");
            assert_eq!(c.take(zeroes), vec![0; zeroes]);
            c.request(0, READ, 5, 4096, 512);
            assert_eq!(c.simple_reply(5), 0);
            assert_eq!(c.take(512), known(4096, 512));
            s.check_alive();
        }
    }
}

#[test]
fn export_name_of_an_unknown_export_ends_the_connection() {
    let s = start();
    for name in [&b"other"[..], b"dis", b"disk\0", &[b'x'; 5000]] {
        let mut c = s.connect();
        c.greet(3);
        c.send_option(EXPORT_NAME, name);
        c.expect_end();
        s.check_alive();
    }
}

#[test]
fn a_client_without_fixed_newstyle_may_only_name_its_export() {
    let s = start();
    let mut c = s.connect();
    c.greet(0);
    assert_eq!(c.code(LIST, b""), ERR_INVALID);
    c.send_option(EXPORT_NAME, b"");
    assert_eq!(c.u64(), SIZE);
    c.take(2 + 124);
    c.request(0, READ, 9, 0, 16);
    assert_eq!(c.simple_reply(9), 0);
    assert_eq!(c.take(16), known(0, 16));
    s.check_alive();
}

#[test]
fn abort_is_acknowledged_whatever_its_data() {
    let s = start();
    for data in [&b""[..], b"bye", &vec![1; 100_000]] {
        let mut c = s.connect();
        c.greet(3);
        assert_eq!(c.code(ABORT, data), ACK);
        c.expect_end();
        s.check_alive();
    }
}

#[test]
fn list_gives_the_name_and_the_description_and_takes_no_data() {
    let s = start();
    let mut c = s.connect();
    c.greet(3);
    let list = c.option(LIST, b"");
    let entry = [&string(b"disk")[..], b"the plaintext of a test"].concat();
    assert_eq!(list, [(SERVER, entry), (ACK, vec![])]);
    assert_eq!(c.code(LIST, b"x"), ERR_INVALID);
    c.negotiate();
    s.check_alive();
}

#[test]
fn unknown_options_are_refused_and_the_next_one_is_parsed() {
    let s = start();
    let mut c = s.connect();
    c.greet(3);
    for kind in [0, 4, EXTENDED_HEADERS, 12, 99, u32::MAX] {
        for data in [&b""[..], b"whatever", &[0xff; 4000]] {
            assert_eq!(c.code(kind, data), ERR_UNSUP, "option {kind}");
        }
    }
    c.negotiate();
    s.check_alive();
}

#[test]
fn an_option_without_its_magic_ends_the_connection() {
    let s = start();
    let mut c = s.connect();
    c.greet(3);
    c.send(b"IHAVEOPS\0\0\0\x03\0\0\0\0");
    c.expect_end();
    s.check_alive();
}

#[test]
fn info_and_go_say_the_same() {
    let s = start();
    let mut c = s.connect();
    c.greet(3);
    for wanted in [&[][..], &[0], &[1], &[2], &[3], &[3, 2, 1, 0], &[3, 3, 3], &[99, 65535]] {
        for name in [&b"disk"[..], b""] {
            let info = c.option(INFO, &wishes(name, wanted));
            let find = |kind: u16| {
                info.iter().filter(|r| r.0 == REP_INFO).find(|r| r.1[..2] == kind.to_be_bytes()).map(|r| &r.1[2..])
            };
            let flags = u16::from_be_bytes(find(0).expect("always INFO_EXPORT")[8..].try_into().unwrap());
            assert_eq!(find(0).unwrap()[..8], SIZE.to_be_bytes());
            assert_eq!(flags, 0b101_0000_0111, "no DF without structured replies");
            let sizes = [1u32, 4096, 32 << 20].map(u32::to_be_bytes).concat();
            assert_eq!(find(3), Some(&sizes[..]));
            assert_eq!(find(1), wanted.contains(&1).then_some(&b"disk"[..]));
            assert_eq!(find(2), wanted.contains(&2).then_some(&b"the plaintext of a test"[..]));
            assert_eq!(info.last().unwrap(), &(ACK, vec![]));
            let mut other = s.connect();
            other.greet(3);
            assert_eq!(other.go(name, wanted), info);
        }
    }
    assert_eq!(c.code(STRUCTURED_REPLY, b""), ACK);
    let info = c.option(INFO, &wishes(b"", &[]));
    assert_eq!(info[0].1[10..], 0b101_1000_0111u16.to_be_bytes(), "DF with structured replies");
    assert_eq!(c.go(b"", &[]), info);
    s.check_alive();
}

#[test]
fn malformed_and_unknown_exports_are_refused_and_negotiation_goes_on() {
    let s = start();
    let mut c = s.connect();
    c.greet(3);
    let right = wishes(b"disk", &[3]);
    for kind in [INFO, GO] {
        for len in 0..right.len() {
            assert_eq!(c.code(kind, &right[..len]), ERR_INVALID, "cut at {len}");
        }
        assert_eq!(c.code(kind, &[&right[..], b"x"].concat()), ERR_INVALID, "a byte too many");
        assert_eq!(c.code(kind, &[&u32::MAX.to_be_bytes()[..], b"disk\0\0"].concat()), ERR_INVALID, "a long name");
        assert_eq!(c.code(kind, &wishes(b"other", &[])), ERR_UNKNOWN);
        assert_eq!(c.code(kind, &wishes(b"dis\0", &[])), ERR_INVALID, "NUL in a name");
        assert_eq!(c.code(kind, &wishes(&[b'x'; 4096], &[])), ERR_UNKNOWN, "the longest name there is");
        assert_eq!(c.code(kind, &wishes(&[b'x'; 4097], &[])), ERR_INVALID, "a name that is too long");
        s.check_alive();
    }
    c.negotiate();
}

#[test]
fn option_data_is_capped() {
    let s = start();
    let mut c = s.connect();
    c.greet(3);
    assert_eq!(c.code(GO, &vec![b'x'; 200_000]), ERR_TOO_BIG);
    assert_eq!(c.code(99, &vec![b'x'; 1 << 20]), ERR_TOO_BIG);
    c.negotiate();
    // What is announced is not allocated, and not waited for.
    let mut c = s.connect();
    c.greet(3);
    c.send(&[&b"IHAVEOPT"[..], &GO.to_be_bytes(), &u32::MAX.to_be_bytes()].concat());
    c.expect_end();
    s.check_alive();
}

#[test]
fn the_number_of_options_is_capped() {
    let s = start();
    let mut c = s.connect();
    c.greet(3);
    for _ in 0..128 {
        assert_eq!(c.code(99, b""), ERR_UNSUP);
    }
    c.send_option(99, b"");
    c.expect_end();
    s.check_alive();
}

#[test]
fn structured_reply_takes_no_data() {
    let s = start();
    let mut c = s.connect();
    c.greet(3);
    assert_eq!(c.code(STRUCTURED_REPLY, b"x"), ERR_INVALID);
    assert_eq!(c.code(SET_META, &queries(b"", &[b"base:allocation"])), ERR_INVALID, "not agreed on yet");
    assert_eq!(c.code(STRUCTURED_REPLY, b""), ACK);
    assert_eq!(c.code(STRUCTURED_REPLY, b""), ACK);
    c.negotiate();
    s.check_alive();
}

#[test]
fn meta_contexts_are_listed_and_set() {
    let s = start();
    let mut c = s.connect();
    c.greet(3);
    assert_eq!(c.code(STRUCTURED_REPLY, b""), ACK);
    let base = |id: u32| (META, [&id.to_be_bytes()[..], b"base:allocation"].concat());
    let done = (ACK, vec![]);
    for wanted in [&[][..], &[&b"base:"[..]], &[b"base:allocation"], &[b"x:", b"base:", b"base:"]] {
        assert_eq!(c.option(LIST_META, &queries(b"disk", wanted)), [base(0), done.clone()]);
    }
    for wanted in [&b"x-other:"[..], b"base:alloc", b"base", b"", b"qemu:dirty-bitmap:x"] {
        assert_eq!(c.option(LIST_META, &queries(b"", &[wanted])), std::slice::from_ref(&done), "{wanted:?}");
        assert_eq!(c.option(SET_META, &queries(b"", &[wanted])), std::slice::from_ref(&done), "{wanted:?}");
    }
    assert_eq!(
        c.option(SET_META, &queries(b"", &[b"base:"])),
        std::slice::from_ref(&done),
        "the wildcard is for listing"
    );
    assert_eq!(c.option(SET_META, &queries(b"", &[])), std::slice::from_ref(&done));
    let twice = c.option(SET_META, &queries(b"", &[b"x:y", b"base:allocation", b"base:allocation"]));
    assert_eq!(twice, [base(1), done]);
    for kind in [LIST_META, SET_META] {
        assert_eq!(c.code(kind, &queries(b"other", &[])), ERR_UNKNOWN);
        assert_eq!(c.code(kind, b""), ERR_INVALID);
        assert_eq!(c.code(kind, &[&string(b"")[..], &u32::MAX.to_be_bytes()].concat()), ERR_INVALID);
        assert_eq!(c.code(kind, &[&queries(b"", &[b"base:"])[..], b"x"].concat()), ERR_INVALID);
        assert_eq!(c.code(kind, &queries(b"", &[&[b'x'; 4097]])), ERR_INVALID);
        assert_eq!(c.code(kind, &queries(b"", &[b"a\0"])), ERR_INVALID);
    }
    s.check_alive();
}

/// Whether BLOCK_STATUS works after these options and a GO for `name`.
fn has_context(s: &Running, options: &[(u32, Vec<u8>)], name: &[u8]) -> bool {
    let mut c = s.connect();
    c.greet(3);
    assert_eq!(c.code(STRUCTURED_REPLY, b""), ACK);
    for (kind, data) in options {
        c.option(*kind, data);
    }
    assert_eq!(c.go(name, &[]).last().unwrap().0, ACK);
    c.request(0, BLOCK_STATUS, 1, 0, 512);
    let chunk = c.chunk();
    if chunk.kind == 0x8001 {
        assert_eq!(chunk.data[..4], EINVAL.to_be_bytes());
    }
    s.check_alive();
    chunk.kind == 5
}

#[test]
fn a_context_holds_until_the_next_choice_or_another_name() {
    let s = start();
    let set = |name: &[u8], wanted: &[&[u8]]| (SET_META, queries(name, wanted));
    let base = b"base:allocation";
    assert!(has_context(&s, &[set(b"disk", &[base])], b"disk"));
    assert!(has_context(&s, &[set(b"", &[base])], b""));
    assert!(has_context(&s, &[set(b"disk", &[base]), (LIST_META, queries(b"disk", &[]))], b"disk"));
    assert!(!has_context(&s, &[], b"disk"));
    assert!(!has_context(&s, &[set(b"disk", &[base]), set(b"disk", &[])], b"disk"), "replaced by nothing");
    assert!(!has_context(&s, &[set(b"disk", &[base]), set(b"other", &[base])], b"disk"), "replaced by a failure");
    assert!(!has_context(&s, &[set(b"disk", &[base]), (SET_META, vec![1])], b"disk"), "replaced by nonsense");
    assert!(!has_context(&s, &[set(b"disk", &[base])], b""), "chosen with another name");
}

#[test]
fn starttls_without_a_certificate_is_refused() {
    let s = start();
    let mut c = s.connect();
    c.greet(3);
    assert_eq!(c.code(STARTTLS, b""), ERR_POLICY);
    assert_eq!(c.code(STARTTLS, b"x"), ERR_POLICY);
    c.negotiate();
    s.check_alive();
}

#[test]
fn a_client_that_stays_silent_or_trickles_is_disconnected() {
    let s = start();
    let mut silent = s.connect();
    let mut half = s.connect();
    half.greet(3);
    half.send(b"IHAVEOPT\0\0\0\x07\0\0\x10\0abc");
    let mut trickle = s.connect();
    trickle.greet(3);
    let started = Instant::now();
    let trickler = std::thread::spawn(move || {
        // Each byte is well in time, but the handshake as a whole is not.
        for b in b"IHAVEOPT\0\0\0\x63\0\0\xff\xff".iter().chain([0; 60].iter()) {
            if std::io::Write::write_all(&mut trickle.0, &[*b]).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(250));
        }
        panic!("the server is too patient");
    });
    silent.take(18);
    silent.expect_end();
    half.expect_end();
    trickler.join().unwrap();
    let took = started.elapsed();
    assert!(took > Duration::from_secs(8) && took < Duration::from_secs(15), "{took:?}");
    s.check_alive();
}

#[test]
fn clients_above_the_cap_are_hung_up_on_and_their_place_is_free_again() {
    let s = start_service(Service::new(export()).with_max_connections(3));
    let mut held: Vec<_> = (0..3).map(|_| s.structured()).collect();
    for _ in 0..5 {
        s.connect().expect_end();
    }
    let mut last = held.pop().unwrap();
    last.request(0, DISC, 0, 0, 0);
    last.expect_end();
    // The server's thread ends a moment after its last byte.
    std::thread::sleep(Duration::from_millis(100));
    s.check_alive();
}

#[test]
fn a_server_for_one_client_does_not_invite_more() {
    let s = start_service(Service::new(export()).with_max_connections(1));
    let mut c = s.connect();
    c.greet(3);
    let info = c.option(INFO, &wishes(b"", &[]));
    assert_eq!(info[0].1[10..], 0b100_0000_0111u16.to_be_bytes());
}
