//! Clients that finish the handshake and then say nothing do not keep their places for ever, and one address does not
//! get all of them.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::support::*;
use unluks::nbd::{Listener, Service};

const TIMEOUT: Duration = Duration::from_millis(600);
const STEP: Duration = Duration::from_millis(100);

#[test]
fn who_says_nothing_is_hung_up_on_and_who_works_is_not() {
    let s = start_service(Service::new(export()).with_idle_timeout(Some(TIMEOUT)));
    let (mut silent, mut good, mut dripping, mut payload) = (s.structured(), s.structured(), s.simple(), s.simple());
    let start = Instant::now();
    // A WRITE whose payload never comes is no request that the server works on.
    payload.request(0, WRITE, 1, 0, 1 << 20);
    let half = request(0, READ, 1, 0, 512);
    for n in 0..27 {
        // The server may have hung up already.
        let _ = std::io::Write::write(&mut dripping.0, &half[n..=n]);
        good.request(0, READ, n as u64, 500, 1000);
        assert_eq!(good.read_reply(n as u64, 500, 1000), Ok(known(500, 1000)));
        std::thread::sleep(STEP);
    }
    assert!(start.elapsed() > TIMEOUT * 2);
    for client in [&mut silent, &mut dripping, &mut payload] {
        client.0.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        client.expect_end();
    }
    s.check_alive();
}

#[test]
fn who_takes_no_reply_is_hung_up_on_and_who_waits_for_a_slow_disk_is_not() {
    let s = start_service(Service::new(export()).with_idle_timeout(Some(NAP / 3)));
    let mut slow = s.structured();
    slow.request(0, READ, 1, SLEEPY.start, 512);
    assert_eq!(slow.read_reply(1, SLEEPY.start, 512), Ok(known(SLEEPY.start, 512)));
    let mut greedy = s.simple();
    greedy.request(0, READ, 1, 8 << 20, 32 << 20);
    std::thread::sleep(NAP * 4);
    let mut got = Vec::new();
    let _ = std::io::Read::read_to_end(&mut greedy.0, &mut got);
    assert!(got.len() < 32 << 20, "the connection was to end before the reply did");
    s.check_alive();
}

#[test]
fn without_a_timeout_an_idle_client_stays() {
    let s = start();
    let mut c = s.structured();
    std::thread::sleep(TIMEOUT);
    c.request(0, READ, 1, 500, 1000);
    assert_eq!(c.read_reply(1, 500, 1000), Ok(known(500, 1000)));
}

#[test]
fn one_address_gets_so_many_places() {
    let listener = Listener::tcp("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.address().unwrap();
    let s = start_on(Service::new(export()).with_max_per_address(2), listener);
    let connect = || {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Raw(stream)
    };
    let enter = |mut c: Raw<TcpStream>| {
        c.greet(3);
        c.negotiate();
        c
    };
    let (first, _second) = (enter(connect()), enter(connect()));
    connect().expect_end();
    drop(first);
    // The place is free once the server has noticed.
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let mut c = connect();
        let mut first = [0; 1];
        if std::io::Read::read(&mut c.0, &mut first).is_ok_and(|n| n == 1) {
            break;
        }
        assert!(Instant::now() < deadline, "no place was free again");
        std::thread::sleep(STEP);
    }
    s.stopper.stop();
}
