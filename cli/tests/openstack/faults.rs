//! What fails in the middle: each ends right or goes on, and never leaves a file that looks whole.

use std::fs;
use std::time::{Duration, Instant};

use crate::support::proxy::{Fault, Proxy, is_download};
use crate::support::{Desk, Run, bed, sha256};

/// A small generator whose numbers are the same in every run (Marsaglia's xorshift).
fn random(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    }
}

fn size(name: &str) -> u64 {
    bed().image(name)["size"].as_u64().unwrap()
}

fn range_of(head: &str) -> Option<u64> {
    let line = head.lines().find_map(|l| l.strip_prefix("range: bytes="))?;
    line.strip_suffix('-').unwrap().parse().ok()
}

#[test]
fn a_connection_that_is_cut_at_ten_random_places_is_gone_on_with() {
    let mut next = random(0x5eed);
    // In one stretch of 25 MB ten cuts at a random distance from the one before.
    let cuts: Vec<u64> = (0..10).map(|_| next() % 2_000_000 + 1).collect();
    let own = cuts.clone();
    let glance =
        Proxy::downloads(bed().port("image"), move |n| own.get(n).map_or(Fault::default(), |at| Fault::cut(*at)));
    let desk = Desk::with_glance(glance.port);
    desk.fetch(bed().id("luks2"), &["--decrypt", "plain"]).ok();
    assert_eq!(sha256(&desk.path("plain")), bed().image("luks2")["plain_sha256"].as_str().unwrap());
    desk.assert_whole(bed().image("luks2"));
    // Each connection asked for what was still missing, and no more.
    let heads = glance.download_heads();
    let mut at = 0;
    assert_eq!(heads.len(), 11);
    for (head, cut) in heads.iter().zip(cuts.iter().chain([&0])) {
        assert_eq!(range_of(head), (at > 0).then_some(at), "{cuts:?}");
        at += cut;
    }
}

#[test]
fn a_later_run_goes_on_where_an_earlier_one_stopped() {
    let mut next = random(0xcafe);
    let places: Vec<u64> = (0..10).map(|_| next() % size("luks1")).collect();
    for place in places {
        let glance = Proxy::downloads(bed().port("image"), move |n| match n {
            0 => Fault::cut(place),
            _ => Fault::answer("503 Service Unavailable"),
        });
        let desk = Desk::with_glance(glance.port);
        let run = desk.fetch(bed().id("luks1"), &["--decrypt", "plain", "--retries", "1"]);
        run.refused(1, "cloud.refused", &["503"]);
        desk.assert_nothing_looks_whole();

        let glance = Proxy::downloads(bed().port("image"), |_| Fault::default());
        let again = Desk::with_glance(glance.port);
        fs::rename(desk.path("backup"), again.path("backup")).unwrap();
        let run = again.fetch(bed().id("luks1"), &["--decrypt", "plain"]);
        run.ok();
        let from = range_of(&glance.download_heads()[0]);
        assert_eq!(from, (place > 0).then_some(place), "{}", run.stderr);
        assert!(place == 0 || run.stderr.contains(&format!("{place} bytes were there")), "{}", run.stderr);
        assert_eq!(sha256(&again.path("plain")), bed().image("luks1")["plain_sha256"].as_str().unwrap());
        again.assert_whole(bed().image("luks1"));
    }
}

#[test]
fn what_an_earlier_run_left_of_another_image_or_damaged_is_not_taken() {
    let cut = || {
        Proxy::downloads(bed().port("image"), |n| if n == 0 { Fault::cut(1_000_000) } else { Fault::answer("503 x") })
    };
    let glance = cut();
    let desk = Desk::with_glance(glance.port);
    assert_eq!(desk.fetch(bed().id("luks1"), &["--retries", "0"]).code, Some(1));
    // Another image does not take the directory over while this one's key is there; without it, it starts anew.
    let other = Desk::new("bed-demo");
    fs::rename(desk.path("backup"), other.path("backup")).unwrap();
    other.fetch(bed().id("luks2"), &[]).refused(2, "", &["is another key"]);
    fs::remove_file(other.path("backup/key")).unwrap();
    other.fetch(bed().id("luks2"), &[]).ok();
    other.assert_whole(bed().image("luks2"));

    // Damaged bytes are found by the hash, and are thrown away.
    let glance = cut();
    let desk = Desk::with_glance(glance.port);
    assert_eq!(desk.fetch(bed().id("luks1"), &["--retries", "0"]).code, Some(1));
    let part = desk.path("backup/.image.raw.unluks-part");
    let mut bytes = fs::read(&part).unwrap();
    bytes[500_000] ^= 1;
    fs::write(&part, bytes).unwrap();
    let whole = Desk::new("bed-demo");
    fs::rename(desk.path("backup"), whole.path("backup")).unwrap();
    whole.fetch(bed().id("luks1"), &[]).refused(4, "image.os_hash_value", &["earlier run", "run it again"]);
    assert_eq!(whole.files(), ["key"]);
    whole.fetch(bed().id("luks1"), &[]).ok();
    whole.assert_whole(bed().image("luks1"));
}

#[test]
fn a_store_without_ranges_is_gone_on_with_all_the_same() {
    let glance = Proxy::downloads(bed().port("image"), |n| Fault {
        cut_after: (n < 2).then_some([3_000_000, 6_000_000][n.min(1)]),
        without_header: Some("range:"),
        ..Fault::default()
    });
    let desk = Desk::with_glance(glance.port);
    desk.fetch(bed().id("luks1"), &[]).ok();
    desk.assert_whole(bed().image("luks1"));
    assert_eq!(
        glance.download_heads().iter().map(|h| range_of(h)).collect::<Vec<_>>(),
        [None, Some(3_000_000), Some(6_000_000)]
    );
}

/// First and last byte of what was asked for with both ends.
fn part_of(head: &str) -> Option<(u64, u64)> {
    let (first, last) = head.lines().find_map(|l| l.strip_prefix("range: bytes="))?.split_once('-')?;
    Some((first.parse().ok()?, last.parse().ok()?))
}

#[test]
fn a_slow_connection_gets_others_beside_it_which_change_nothing() {
    const SLOW: u64 = 5_000_000;
    // A store with parts; one without, where the first connection goes on; and one whose part is cut.
    for (cut, without_header) in [(None, None), (None, Some("range:")), (Some(1_000_000), None)] {
        let glance = Proxy::downloads(bed().port("image"), move |n| Fault {
            rate: Some(SLOW),
            cut_after: cut.filter(|_| n == 2),
            without_header,
            ..Fault::default()
        });
        let desk = Desk::with_glance(glance.port);
        desk.fetch(bed().id("luks2"), &["--decrypt", "plain"]).ok();
        assert_eq!(sha256(&desk.path("plain")), bed().image("luks2")["plain_sha256"].as_str().unwrap());
        desk.assert_whole(bed().image("luks2"));
        let mut parts: Vec<_> = glance.download_heads().iter().filter_map(|head| part_of(head)).collect();
        parts.sort_unstable();
        assert!(parts.len() >= 2, "{parts:?}");
        assert!(parts.windows(2).all(|two| two[0].1 + 1 == two[1].0), "{parts:?}");
        assert_eq!(parts[parts.len() - 1].1 + 1, size("luks2"), "{parts:?}");
        // Nothing is asked for twice where the store gives no parts.
        assert!(without_header.is_none() || glance.download_heads().len() == 1 + parts.len());
    }
}

#[test]
fn a_store_that_is_short_is_said_to_be() {
    let end = 5_000_000u64;
    let glance = Proxy::start(bed().port("image"), move |head, _| {
        if is_download(head) { Fault::cut(end.saturating_sub(range_of(head).unwrap_or(0))) } else { Fault::default() }
    });
    let desk = Desk::with_glance(glance.port);
    let run = desk.fetch(bed().id("luks1"), &["--decrypt", "plain"]);
    run.refused(4, "image.data", &["only 5000000 of the image's 10485760 bytes", "whoever runs the cloud"]);
    desk.assert_nothing_looks_whole();
}

#[test]
fn data_that_is_lost_is_said_to_be() {
    let glance = Proxy::downloads(bed().port("image"), |_| Fault {
        answer: Some("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n".into()),
        ..Fault::default()
    });
    let desk = Desk::with_glance(glance.port);
    desk.fetch(bed().id("luks1"), &[]).refused(4, "image.data", &["lost in the store"]);
    desk.assert_nothing_looks_whole();
}

#[test]
fn a_wrong_byte_leaves_nothing() {
    for (place, more) in
        [(0, &[][..]), (5_000_000, &["--decrypt", "plain"]), (10_485_759, &["--decrypt", "plain", "--no-ciphertext"])]
    {
        let glance = Proxy::downloads(bed().port("image"), move |_| Fault { flip: Some(place), ..Fault::default() });
        let desk = Desk::with_glance(glance.port);
        desk.fetch(bed().id("luks1"), more).refused(4, "image.os_hash_value", &["sha512", "nothing of it is kept"]);
        desk.assert_nothing_looks_whole();
        assert_eq!(desk.files(), ["key"]);
        assert!(!desk.path(".plain.unluks-part").exists());
    }
}

#[test]
fn more_data_than_the_image_has_is_refused() {
    let glance = Proxy::downloads(bed().port("image"), |_| Fault {
        replace: Some(("Content-Length: 10485760".into(), "Content-Length: 99485760".into())),
        ..Fault::default()
    });
    let desk = Desk::with_glance(glance.port);
    desk.fetch(bed().id("luks1"), &[]).refused(4, "image.size", &["99485760", "10485760"]);
    desk.assert_nothing_looks_whole();
}

#[test]
fn a_service_that_is_busy_is_waited_for() {
    let glance = Proxy::start(bed().port("image"), |head, n| match n {
        0 if is_download(head) => Fault {
            answer: Some(
                "HTTP/1.1 429 Slow down\r\nRetry-After: 2\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".into(),
            ),
            ..Fault::default()
        },
        1 if is_download(head) => Fault::answer("502 Bad Gateway"),
        2 if is_download(head) => Fault { answer: Some(String::new()), ..Fault::default() },
        _ => Fault::default(),
    });
    let desk = Desk::with_glance(glance.port);
    let start = Instant::now();
    desk.fetch(bed().id("luks1"), &[]).ok();
    desk.assert_whole(bed().image("luks1"));
    assert!(start.elapsed() > Duration::from_secs(2), "Retry-After was not heeded");
    assert_eq!(glance.download_heads().len(), 4);
}

#[test]
fn a_redirect_does_not_get_the_token() {
    let thief = Proxy::downloads(bed().port("image"), |_| Fault::default());
    let port = thief.port;
    let glance = Proxy::downloads(bed().port("image"), move |_| Fault {
        answer: Some(format!(
            "HTTP/1.1 302 Found\r\nLocation: http://localhost:{port}/v2/images/x/file\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )),
        ..Fault::default()
    });
    let desk = Desk::with_glance(glance.port);
    desk.fetch(bed().id("luks1"), &[]).refused(2, "cloud.refused", &["302"]);
    assert!(thief.download_heads().is_empty());
}

#[test]
fn a_full_disk_is_said_to_be_and_what_came_is_kept() {
    let mut desk = Desk::new("bed-demo");
    desk.file_limit = Some(4 << 20);
    let run = desk.fetch(bed().id("luks1"), &[]);
    run.refused(1, "", &["writing backup/image.raw (at byte ", "File too large", "make room"]);
    desk.assert_nothing_looks_whole();
    let kept = fs::metadata(desk.path("backup/.image.raw.unluks-part")).unwrap().len();
    assert!(kept > 0 && kept <= 4 << 20);
    desk.file_limit = None;
    let run = desk.fetch(bed().id("luks1"), &[]);
    assert!(run.ok().stderr.contains(&format!("{kept} bytes were there")), "{}", run.stderr);
    desk.assert_whole(bed().image("luks1"));

    // The plaintext's disk may be the full one.
    let mut desk = Desk::new("bed-demo");
    desk.file_limit = Some(4 << 20);
    let run = desk.fetch(bed().id("luks1"), &["--decrypt", "plain", "--no-ciphertext"]);
    run.refused(1, "", &["writing plain", "File too large"]);
    desk.assert_nothing_looks_whole();
    assert!(!desk.path(".plain.unluks-part").exists());
}

#[test]
fn ctrl_c_ends_in_good_order_and_a_later_run_goes_on() {
    let glance = Proxy::downloads(bed().port("image"), |_| Fault { rate: Some(2 << 20), ..Fault::default() });
    let desk = Desk::with_glance(glance.port);
    let child =
        desk.command(&["fetch", "image", bed().id("luks1"), "-o", "backup", "--decrypt", "plain"]).spawn().unwrap();
    let part = desk.path("backup/.image.raw.unluks-part");
    let start = Instant::now();
    while fs::metadata(&part).map_or(0, |m| m.len()) < 1 << 20 {
        assert!(start.elapsed() < Duration::from_secs(60), "nothing comes");
        std::thread::sleep(Duration::from_millis(20));
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let asked = Instant::now();
    Run::of(child).refused(130, "cancelled", &["stopped"]);
    assert!(asked.elapsed() < Duration::from_secs(5));
    desk.assert_nothing_looks_whole();
    assert!(!desk.path(".plain.unluks-part").exists());

    let quick = Desk::new("bed-demo");
    fs::rename(desk.path("backup"), quick.path("backup")).unwrap();
    let run = quick.fetch(bed().id("luks1"), &["--decrypt", "plain"]);
    assert!(run.ok().stderr.contains("bytes were there from an earlier run"), "{}", run.stderr);
    quick.assert_whole(bed().image("luks1"));
}

#[test]
fn a_wrong_key_stops_the_download() {
    // The image of one secret, said to be of another.
    let (one, other) = (bed().image("luks1"), bed().image("luks2"));
    let pair = (one["secret_id"].as_str().unwrap().to_owned(), other["secret_id"].as_str().unwrap().to_owned());
    let glance = Proxy::start(bed().port("image"), move |head, _| {
        if is_download(head) {
            Fault { rate: Some(1 << 20), ..Fault::default() }
        } else {
            Fault { replace: Some(pair.clone()), ..Fault::default() }
        }
    });
    let desk = Desk::with_glance(glance.port);
    let run = desk.fetch(bed().id("luks1"), &["--decrypt", "plain"]);
    assert_eq!(run.code, Some(3), "{}", run.stderr);
    desk.assert_nothing_looks_whole();
}

#[test]
fn a_key_of_zeroes_is_the_clouds_own() {
    let id = bed().image("luks1")["secret_id"].as_str().unwrap().to_owned();
    let zeroes = "00000000-0000-0000-0000-000000000000".to_owned();
    let glance = Proxy::start(bed().port("image"), move |_, _| Fault {
        replace: Some((id.clone(), zeroes.clone())),
        ..Fault::default()
    });
    let desk = Desk::with_glance(glance.port);
    let run = desk.fetch(bed().id("luks1"), &[]);
    run.refused(5, "image.cinder_encryption_key_id", &["fixed_key", "cinder.conf", "--key-file"]);
}

#[test]
fn an_answer_that_is_too_large_or_no_json_is_refused() {
    let huge = "x".repeat(9 << 20);
    let glance = Proxy::start(bed().port("image"), move |_, _| Fault {
        answer: Some(format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{huge}")),
        ..Fault::default()
    });
    Desk::with_glance(glance.port).fetch(bed().id("luks1"), &[]).refused(6, "cloud.answer", &["8388608"]);
    let glance = Proxy::start(bed().port("image"), |_, _| Fault {
        answer: Some("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{\"id\":".into()),
        ..Fault::default()
    });
    Desk::with_glance(glance.port).fetch(bed().id("luks1"), &[]).refused(4, "cloud.answer", &["no JSON"]);
}
