//! Many clients at once, many one after the other, and many that die in the midst of a request: nothing may leak, and a
//! good client reads right bytes all the while.
//!
//! `UNLUKS_STRESS=full cargo test --release --test nbd_stress -- --nocapture` runs the full numbers; without it the
//! same code runs a twentieth of them, and says so.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::support::*;
use unluks::nbd::Service;

/// What the process holds: threads, descriptors, and KiB of memory.
#[derive(Clone, Copy, Debug)]
struct Holdings {
    threads: usize,
    descriptors: usize,
    memory: usize,
}

fn holdings() -> Holdings {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    };
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap().count();
    Holdings { threads: field("Threads:"), descriptors, memory: field("VmRSS:") }
}

/// Waits until threads and descriptors are down to what they were.
fn expect_back(before: Holdings) -> Holdings {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let now = holdings();
        if now.threads <= before.threads && now.descriptors <= before.descriptors {
            return now;
        }
        assert!(Instant::now() < deadline, "before {before:?}, now {now:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

// One test: what a process holds cannot be counted while other tests run in it.
#[test]
fn nothing_leaks_and_nobody_suffers() {
    let full = std::env::var("UNLUKS_STRESS").is_ok_and(|value| value == "full");
    let (at_once, visits, killed) = if full { (200, 10_000, 1000) } else { (200, 500, 50) };
    println!(
        "UNLUKS_STRESS={}: {at_once} at once, {visits} visits, {killed} killed",
        if full { "full" } else { "small" }
    );
    // Room for those that left and were not noticed yet.
    let s = start_service(Service::new(export()).with_max_connections(1000));
    let before = holdings();
    // The allocator keeps memory of threads that ended, more in some rounds than in others, and up to a bound. What
    // leaks grows in every round: with each visit 2 KiB at least would be a MiB.
    let mut memory = usize::MAX;
    for n in 1.. {
        good_client_beside(&s, || round(&s, at_once, visits, killed));
        let now = expect_back(before);
        println!("round {n}: before {before:?}, after {now:?}");
        if now.memory < memory.saturating_add(1024) && n > 1 {
            break;
        }
        assert!(n < 12, "memory grows and grows");
        memory = now.memory;
    }
    s.check_alive();
}

/// Does `what` while a client reads and checks every byte.
fn good_client_beside(s: &Running, what: impl FnOnce()) {
    let (over, reads) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut c = s.structured();
            let mut at = 8 << 20;
            while !over.load(Relaxed) {
                c.request(0, READ, at, at, 100_000);
                assert_eq!(c.read_reply(at, at, 100_000), Ok(known(at, 100_000)));
                at = if at > SIZE - 300_000 { 8 << 20 } else { at + 100_001 };
                reads.fetch_add(1, Relaxed);
            }
        });
        what();
        over.store(true, Relaxed);
    });
    let reads = reads.into_inner();
    println!("the good client read {reads} times");
    assert!(reads > 10);
}

fn round(s: &Running, at_once: usize, visits: usize, killed: usize) {
    let mut crowd: Vec<_> = (0..at_once).map(|_| s.structured()).collect();
    for (n, c) in (0..).zip(&mut crowd) {
        c.request(0, READ, n, n * 4096, 5000);
        c.request(0, READ, n + 1, 9 << 20, 300_000);
    }
    for (n, c) in (0..).zip(&mut crowd) {
        assert_eq!(c.read_reply(n, n * 4096, 5000), Ok(known(n * 4096, 5000)));
        assert_eq!(c.read_reply(n + 1, 9 << 20, 300_000), Ok(known(9 << 20, 300_000)));
    }
    drop(crowd);
    for n in 0..visits {
        let mut c = s.connect();
        match n % 4 {
            0 => {}
            1 => c.greet(3),
            2 => {
                c.greet(3);
                c.negotiate();
            }
            _ => {
                c.greet(3);
                c.negotiate();
                c.request(0, READ, 1, 0, 4096);
                assert_eq!(c.read_reply(1, 0, 4096), Ok(known(0, 4096)));
                c.request(0, DISC, 0, 0, 0);
                c.expect_end();
            }
        }
    }
    for n in 0..killed {
        let mut c = s.structured();
        match n % 3 {
            0 => c.send(&(0..16).flat_map(|n| request(0, READ, n, 8 << 20, 1 << 20)).collect::<Vec<_>>()),
            1 => c.send(&request(0, READ, 1, 0, 4096)[..13]),
            _ => {
                c.send(&request(0, WRITE, 1, 0, 1 << 20));
                c.send(&[0; 1000]);
            }
        }
    }
}
