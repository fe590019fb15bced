//! The transmission phase, line by line of the protocol, by a client that sends raw bytes. After each probe the server
//! must still serve.

use std::collections::VecDeque;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::support::*;
use proptest::prelude::*;
use unluks::nbd::{Export, Service, Stream};

#[test]
fn simple_reads_carry_the_cookie_and_the_bytes() {
    let s = start();
    let mut c = s.simple();
    for (cookie, offset, len) in [(0, 0, 1), (u64::MAX, SIZE - 1, 1), (7, 511, 4097), (8, HOLE.start - 5, 70_000)] {
        c.request(0, READ, cookie, offset, len as u32);
        assert_eq!(c.simple_reply(cookie), 0);
        assert_eq!(c.take(len), known(offset, len));
    }
    for (cookie, offset, len) in [(2, 8 << 20, 32 << 20), (3, (8 << 20) + 1, 300_001)] {
        c.request(0, READ, cookie, offset, len as u32);
        assert_eq!(c.simple_reply(cookie), 0);
        assert_eq!(c.take(len), known(offset, len), "{offset}+{len}");
    }
    s.check_alive();
}

#[test]
fn structured_reads_are_whole_in_range_and_do_not_overlap() {
    let s = start();
    let mut c = s.structured();
    let cases =
        [(0, 1), (SIZE - 1, 1), (511, 4097), (8 << 20, 32 << 20), ((8 << 20) + 513, 1_000_001), (900_000, 300_000)];
    for flags in [0, 4] {
        for (cookie, (offset, len)) in (100..).zip(cases) {
            c.request(flags, READ, cookie, offset, len as u32);
            assert_eq!(c.read_reply(cookie, offset, len), Ok(known(offset, len)), "{offset}+{len}");
        }
    }
    s.check_alive();
}

#[test]
fn an_unfragmented_read_is_one_chunk() {
    let s = start();
    let mut c = s.structured();
    for len in [1u32, 65_536, 65_537, 3 << 20, 32 << 20] {
        c.request(4, READ, 3, 8 << 20, len);
        let chunk = c.chunk();
        assert_eq!((chunk.kind, chunk.data.len()), (1, 8 + len as usize));
        if chunk.flags & 1 == 0 {
            c.success(3);
        }
    }
    s.check_alive();
}

#[test]
fn a_failed_read_is_an_error_and_the_connection_lives() {
    let s = start();
    let mut simple = s.simple();
    let mut c = s.structured();
    let around = (BAD.start - 2000, 4096);
    let long = (BAD.start - 900_000, 2 << 20);
    for (cookie, (offset, len)) in [(1, around), (2, long), (3, (BAD.start, 512))] {
        simple.request(0, READ, cookie, offset, len);
        assert_eq!(simple.simple_reply(cookie), EIO, "no data may follow");
        for flags in [0, 4] {
            c.request(flags, READ, cookie, offset, len);
            assert_eq!(c.read_reply(cookie, offset, len as usize), Err(EIO));
        }
        simple.request(0, READ, 9, 0, 16);
        assert_eq!(simple.simple_reply(9), 0);
        simple.take(16);
    }
    // Nothing is called done before its error can be told: the error chunk is the last one, and it says where.
    c.request(0, READ, 4, long.0, long.1);
    loop {
        let chunk = c.chunk();
        if chunk.kind == 0x8002 {
            let at = u64::from_be_bytes(chunk.data[chunk.data.len() - 8..].try_into().unwrap());
            assert!(chunk.flags == 1 && (long.0..BAD.end).contains(&at), "{at}");
            break;
        }
        assert_eq!((chunk.kind, chunk.flags), (1, 0));
    }
    s.check_alive();
}

#[test]
fn what_is_out_of_bounds_is_einval() {
    let s = start();
    let (mut simple, mut c) = (s.simple(), s.structured());
    for (offset, len) in [(SIZE, 1), (SIZE - 1, 2), (SIZE + 1, 0), (u64::MAX, 1), (u64::MAX, 4096), (1 << 63, 1)] {
        for command in [READ, CACHE, BLOCK_STATUS] {
            c.request(0, command, 6, offset, len);
            assert_eq!(c.error(6), EINVAL, "command {command} at {offset}+{len}");
            simple.request(0, command, 6, offset, len);
            assert_eq!(simple.simple_reply(6), EINVAL);
        }
    }
    s.check_alive();
}

#[test]
fn unknown_commands_and_flags_are_einval() {
    let s = start();
    let (mut simple, mut c) = (s.simple(), s.structured());
    for command in [8, 9, 100, u16::MAX] {
        c.request(0, command, 1, 0, 512);
        assert_eq!(c.error(1), EINVAL);
        simple.request(0, command, 1, 0, 512);
        assert_eq!(simple.simple_reply(1), EINVAL);
    }
    let flags = [(READ, 1), (READ, 8), (READ, 1 << 15), (CACHE, 4), (FLUSH, 2), (BLOCK_STATUS, 4), (BLOCK_STATUS, 1)];
    for (command, flag) in flags {
        c.request(flag, command, 2, 0, 0);
        assert_eq!(c.error(2), EINVAL, "command {command} with flag {flag}");
    }
    simple.request(4, READ, 2, 0, 512);
    assert_eq!(simple.simple_reply(2), EINVAL, "DF without structured replies");
    simple.request(0, BLOCK_STATUS, 2, 0, 512);
    assert_eq!(simple.simple_reply(2), EINVAL, "BLOCK_STATUS without a context");
    s.check_alive();
}

#[test]
fn nothing_is_ever_written() {
    let s = start();
    let (mut simple, mut c) = (s.simple(), s.structured());
    for command in [TRIM, WRITE_ZEROES] {
        for (flags, offset, len) in [(0, 0, 512), (1, 0, 1 << 30), (0, SIZE, 4096)] {
            c.request(flags, command, 4, offset, len);
            assert_eq!(c.error(4), EPERM);
            simple.request(flags, command, 4, offset, len);
            assert_eq!(simple.simple_reply(4), EPERM);
        }
    }
    // The payload goes the way of its request, so that the stream stays in step.
    for len in [0, 1, 512, 20_000, 33 << 20] {
        for c in [&mut simple, &mut c] {
            c.request(1, WRITE, 5, 0, len as u32);
            c.send(&vec![0x25; len]);
        }
        assert_eq!(simple.simple_reply(5), EPERM);
        assert_eq!(c.error(5), EPERM);
    }
    // Requests on both sides of a payload, in one write.
    let mut bytes = request(0, READ, 1, 0, 4);
    bytes.extend(request(0, WRITE, 2, 0, 100));
    bytes.extend([0; 100]);
    bytes.extend(request(0, READ, 3, 8, 4));
    c.send(&bytes);
    assert_eq!(c.read_reply(1, 0, 4), Ok(known(0, 4)));
    assert_eq!(c.error(2), EPERM);
    assert_eq!(c.read_reply(3, 8, 4), Ok(known(8, 4)));
    s.check_alive();
}

#[test]
fn a_read_above_the_largest_payload_is_refused_and_the_connection_lives() {
    let s = start();
    let (mut simple, mut c) = (s.simple(), s.structured());
    for len in [(32 << 20) + 1, 40 << 20, u32::MAX] {
        c.request(0, READ, 1, 0, len);
        assert_eq!(c.error(1), EOVERFLOW);
        simple.request(0, READ, 1, 0, len);
        assert_eq!(simple.simple_reply(1), EINVAL);
    }
    c.request(0, READ, 2, 0, 1);
    assert_eq!(c.read_reply(2, 0, 1), Ok(known(0, 1)));
    s.check_alive();
}

#[test]
fn requests_of_no_length_are_answered() {
    let s = start();
    let (mut simple, mut c) = (s.simple(), s.structured());
    for offset in [0, 5, SIZE] {
        for command in [READ, CACHE] {
            c.request(0, command, 1, offset, 0);
            c.success(1);
            simple.request(0, command, 1, offset, 0);
            assert_eq!(simple.simple_reply(1), 0);
        }
    }
    c.request(4, READ, 1, 0, 0);
    c.success(1);
    c.request(0, BLOCK_STATUS, 1, 0, 0);
    assert_eq!(c.error(1), EINVAL);
    c.request(0, TRIM, 1, 0, 0);
    assert_eq!(c.error(1), EPERM);
    c.request(0, FLUSH, 2, 0, 0);
    c.success(2);
    c.request(0, FLUSH, 2, 512, 512);
    assert_eq!(c.error(2), EINVAL);
    c.request(0, CACHE, 3, 0, u32::try_from(SIZE).unwrap());
    c.success(3);
    s.check_alive();
}

/// The extents of one BLOCK_STATUS: lengths and states.
fn extents(c: &mut Raw<UnixStream>, flags: u16, offset: u64, len: u32) -> Vec<(u32, u32)> {
    c.request(flags, BLOCK_STATUS, 8, offset, len);
    let chunk = c.chunk();
    assert_eq!((chunk.flags, chunk.kind, chunk.cookie), (1, 5, 8), "{chunk:?}");
    assert_eq!(chunk.data[..4], 1u32.to_be_bytes(), "the context's id");
    let word = |b: &[u8]| u32::from_be_bytes(b.try_into().unwrap());
    chunk.data[4..].chunks(8).map(|e| (word(&e[..4]), word(&e[4..]))).collect()
}

#[test]
fn block_status_tells_data_from_known_zeroes() {
    let s = start();
    let mut c = s.structured();
    let (mib, all) = (1 << 20, u32::try_from(SIZE).unwrap());
    assert_eq!(extents(&mut c, 0, 0, all), [(mib, 0), (mib, 3), (all - 2 * mib, 0)]);
    assert_eq!(extents(&mut c, 0, 100, 1000), [(1000, 0)]);
    assert_eq!(extents(&mut c, 0, HOLE.start - 1, 2), [(1, 0), (1, 3)]);
    assert_eq!(extents(&mut c, 8, HOLE.start - 1, 2), [(1, 0)], "REQ_ONE");
    assert_eq!(extents(&mut c, 8, 0, all), [(mib, 0)]);
    assert_eq!(extents(&mut c, 8, HOLE.start, 512), [(512, 3)], "not longer than was asked");
    s.check_alive();
}

#[test]
fn a_request_without_its_magic_ends_the_connection() {
    let s = start();
    for bytes in [&[0; 28][..], b"IHAVEOPT\0\0\0\x03\0\0\0\0 and more bytes"] {
        let mut c = s.structured();
        c.send(bytes);
        c.expect_end();
        s.check_alive();
    }
}

#[test]
fn replies_overtake_each_other() {
    let s = start();
    let mut c = s.structured();
    // A long read sleeps; a small one behind it does not wait for it.
    c.send(&[request(0, READ, 1, SLEEPY.start, 1 << 18), request(0, READ, 2, 0, 512)].concat());
    assert_eq!(c.read_reply(2, 0, 512), Ok(known(0, 512)));
    assert_eq!(c.read_reply(1, SLEEPY.start, 1 << 18), Ok(known(SLEEPY.start, 1 << 18)));
    // Once the source is known to be slow, small reads wait for it side by side.
    for _ in 0..2 {
        c.request(0, READ, 3, SLEEPY.start, 512);
        assert!(c.read_reply(3, SLEEPY.start, 512).is_ok());
    }
    let started = Instant::now();
    c.send(&(0..8).flat_map(|n| request(0, READ, n, SLEEPY.start, 512)).collect::<Vec<_>>());
    let mut seen: Vec<u64> = (0..8).map(|_| c.chunk().cookie).collect();
    assert!(started.elapsed() < NAP * 4, "{:?}", started.elapsed());
    seen.sort_unstable();
    assert_eq!(seen, (0..8).collect::<Vec<_>>());
    s.check_alive();
}

#[test]
fn disc_finishes_what_is_outstanding() {
    let s = start();
    let mut c = s.structured();
    let mut bytes = request(0, READ, 1, SLEEPY.start, 1 << 18);
    bytes.extend(request(0, READ, 2, 0, 4096));
    bytes.extend(request(0, DISC, 3, 0, 0));
    bytes.extend(request(0, READ, 4, 0, 4096));
    c.send(&bytes);
    assert_eq!(c.read_reply(2, 0, 4096), Ok(known(0, 4096)));
    assert_eq!(c.read_reply(1, SLEEPY.start, 1 << 18), Ok(known(SLEEPY.start, 1 << 18)));
    c.expect_end();
    s.check_alive();
}

#[test]
fn a_client_that_only_shuts_its_writing_side_gets_its_replies() {
    let s = start();
    let mut c = s.structured();
    c.request(0, READ, 1, SLEEPY.start, 1 << 18);
    c.0.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(c.read_reply(1, SLEEPY.start, 1 << 18).is_ok());
    c.expect_end();
    s.check_alive();
}

#[test]
fn clients_that_stop_reading_send_halves_or_vanish_hurt_no_other() {
    let s = start();
    let mut held = Vec::new();
    for _ in 0..8 {
        let mut deaf = s.structured();
        deaf.send(&(0..64).flat_map(|n| request(0, READ, n, 8 << 20, 32 << 20)).collect::<Vec<_>>());
        let mut half = s.structured();
        half.send(&request(0, READ, 1, 0, 512)[..20]);
        let mut writer = s.structured();
        writer.send(&request(0, WRITE, 1, 0, 1 << 20));
        writer.send(&[0; 1000]);
        let mut gone = s.structured();
        gone.send(&request(0, READ, 1, SLEEPY.start, 32 << 20 >> 1));
        drop(gone);
        held.push((deaf, half, writer));
    }
    let started = Instant::now();
    for _ in 0..10 {
        s.check_alive();
    }
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    // And they do not hold up the end (it is not asked for twice).
    let started = Instant::now();
    drop(held);
    s.stop_and_join();
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_source_that_panics_ends_its_connection_only() {
    let s = start();
    for len in [512, 1 << 20] {
        let mut c = s.structured();
        c.request(0, READ, 1, DEFECT.start, len);
        c.expect_end();
        s.check_alive();
    }
}

#[test]
fn a_stop_finishes_what_is_outstanding_and_refuses_the_rest() {
    let s = start();
    let mut c = s.structured();
    let path = s.path.clone();
    c.request(0, READ, 1, SLEEPY.start, 1 << 18);
    std::thread::sleep(NAP / 3);
    s.stopper.stop();
    std::thread::sleep(NAP / 3);
    assert!(!path.exists(), "nobody else comes in");
    c.request(0, READ, 2, 0, 512);
    assert_eq!(c.error(2), ESHUTDOWN);
    assert_eq!(c.read_reply(1, SLEEPY.start, 1 << 18), Ok(known(SLEEPY.start, 1 << 18)));
    c.expect_end();
    s.stop_and_join();
}

#[test]
fn a_stop_does_not_wait_for_a_client_that_does_not_read() {
    let s = start();
    let mut deaf = s.structured();
    deaf.send(&request(0, READ, 1, 8 << 20, 32 << 20));
    std::thread::sleep(Duration::from_millis(100));
    let started = Instant::now();
    s.stop_and_join();
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
}

/// A stream that was written before: the handler cannot tell it from a client.
struct Script {
    input: Mutex<VecDeque<u8>>,
    output: Mutex<Vec<u8>>,
    /// How much a read gives at most.
    step: usize,
}

impl Stream for Script {
    fn read(&self, buf: &mut [u8]) -> std::io::Result<usize> {
        let mut input = self.input.lock().unwrap();
        let n = buf.len().min(self.step).min(input.len());
        for (to, from) in buf.iter_mut().zip(input.drain(..n)) {
            *to = from;
        }
        Ok(n)
    }

    fn write_all(&self, bytes: &[u8]) -> std::io::Result<()> {
        self.output.lock().unwrap().write_all(bytes)
    }

    fn set_deadline(&self, _: Option<Instant>) {}

    fn close(&self) {
        self.input.lock().unwrap().clear();
    }
}

fn play(service: &Service, input: &[u8], step: usize) -> Vec<u8> {
    let script = Script { input: Mutex::new(input.iter().copied().collect()), output: Mutex::default(), step };
    // Nonsense is an error, and no more.
    let _ = service.serve_connection(&script);
    script.output.into_inner().unwrap()
}

#[test]
fn the_handler_takes_a_script_in_any_portions() {
    let service = Service::new(export());
    let mut script = 3u32.to_be_bytes().to_vec();
    let mut option = |kind: u32, data: &[u8]| {
        script.extend([b"IHAVEOPT", &kind.to_be_bytes()[..], &string(data)].concat());
    };
    option(STRUCTURED_REPLY, b"");
    option(SET_META, &queries(b"", &[b"base:allocation"]));
    option(GO, &wishes(b"", &[]));
    for n in 0..20 {
        script.extend(request(0, READ, n, n * 1000, 5000));
        script.extend(request(0, BLOCK_STATUS, n, 0, 5000));
    }
    script.extend(request(0, DISC, 0, 0, 0));
    let whole = play(&service, &script, usize::MAX);
    assert!(whole.len() > 100_000 && whole.starts_with(b"NBDMAGICIHAVEOPT"));
    for step in [1, 7, 28, 29] {
        assert_eq!(play(&service, &script, step), whole, "portions of {step}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_bytes_make_the_handler_panic(tail in proptest::collection::vec(any::<u8>(), 0..400), start in 0..4usize) {
        let service = Service::new(Export::new("", None, std::sync::Arc::new(vec![1u8; 100_000])).unwrap());
        let mut script = if start > 0 { 3u32.to_be_bytes().to_vec() } else { Vec::new() };
        if start > 1 {
            script.extend([b"IHAVEOPT", &GO.to_be_bytes()[..], &string(&wishes(b"", &[]))].concat());
        }
        match start {
            // Options and requests that are in order up to their numbers.
            1 => script.extend(tail.chunks(9).flat_map(|t| {
                let (head, data) = t.split_at(1);
                [b"IHAVEOPT", &u32::from(head[0] % 13).to_be_bytes()[..], &string(data)].concat()
            })),
            3 => script.extend(tail.chunks_exact(16).flat_map(|t| {
                let number = |r: std::ops::Range<usize>| t[r].iter().fold(0u64, |n, b| n << 8 | u64::from(*b));
                request(u16::from(t[0] % 16), u16::from(t[1] % 9), number(2..4), number(5..8), number(9..12) as u32)
            })),
            _ => script.extend(tail),
        }
        play(&service, &script, usize::MAX);
    }
}
