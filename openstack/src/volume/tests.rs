use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use super::*;
use crate::fake::Fake;
use crate::steps::roll_back;

fn volume(change: impl FnOnce(&mut Value)) -> Value {
    let mut volume = json!({"id": "vol-1", "name": "data", "status": "available", "size": 3, "encrypted": true,
        "volume_type": "luks", "volume_type_id": "type-1", "encryption_key_id": "key-1", "availability_zone": "nova"});
    change(&mut volume);
    json!({ "volume": volume })
}

fn snapshot() -> Value {
    json!({"snapshot": {"id": "snap-1", "name": "nightly", "volume_id": "vol-1", "status": "available", "size": 2}})
}

fn found(change: impl Fn(&mut Value) + Sync + 'static, wanted: &str) -> Result<Found> {
    let api = Fake::new(move |asked| match asked {
        "GET volumes/vol-1" => Some((200, volume(&change))),
        "GET snapshots/snap-1" => Some((200, snapshot())),
        "GET volumes" => Some((
            200,
            json!({"volumes": [{"id": "vol-1", "name": "data"}, {"id": "x", "name": "data-2"},
            {"id": "vol-2", "name": "twins"}, {"id": "vol-3", "name": "twins"}]}),
        )),
        "GET snapshots" => Some((200, json!({"snapshots": [{"id": "snap-1", "name": "nightly"}]}))),
        "GET types/type-1/encryption" => {
            Some((200, json!({"provider": "luks", "cipher": "aes-xts-plain64", "key_size": 256})))
        }
        _ => None,
    });
    find(&api, wanted)
}

#[test]
fn a_volume_and_a_snapshot_lead_to_the_key_by_id_and_by_name() {
    for wanted in ["vol-1", "data"] {
        let found = found(|_| {}, wanted).unwrap();
        assert_eq!((found.key_id.as_str(), found.info.snapshot), ("key-1", None), "{wanted}");
        assert_eq!(found.info.encryption.unwrap().key_size, Some(256));
    }
    for wanted in ["snap-1", "nightly"] {
        let found = found(|_| {}, wanted).unwrap();
        assert_eq!((found.key_id.as_str(), found.info.snapshot.as_deref()), ("key-1", Some("snap-1")), "{wanted}");
        assert_eq!(found.snapshot_size, Some(2));
    }
}

#[test]
fn what_has_no_key_says_why() {
    let rule = |change: fn(&mut Value), wanted: &str| found(change, wanted).unwrap_err().rule().to_owned();
    assert_eq!(rule(|_| {}, "nothing"), "volume.unknown");
    assert_eq!(rule(|_| {}, "../x"), "volume.unknown");
    assert_eq!(rule(|_| {}, "twins"), "volume.ambiguous");
    assert_eq!(rule(|v| v["encryption_key_id"] = Value::Null, "vol-1"), "volume.fixed-key");
    assert_eq!(rule(|v| v["encryption_key_id"] = FIXED_KEY.into(), "vol-1"), "volume.fixed-key");
    assert_eq!(rule(|v| v["encryption_key_id"] = "../x".into(), "vol-1"), "cloud.id");
    let plain = |v: &mut Value| (v["encrypted"], v["encryption_key_id"]) = (false.into(), Value::Null);
    assert_eq!(rule(plain, "vol-1"), "volume.plain");
    let old = Fake::new(|_| Some((406, json!({"computeFault": {"message": "Version 3.64 is not supported"}}))));
    assert_eq!(find(&old, "vol-1").unwrap_err().rule(), "volume.version");
    let orphan = Fake::new(|asked| match asked {
        "GET snapshots/snap-1" => Some((200, snapshot())),
        "GET volumes" => Some((200, json!({"volumes": []}))),
        _ => None,
    });
    assert_eq!(find(&orphan, "snap-1").unwrap_err().rule(), "volume.snapshot");
}

#[test]
fn the_steps_are_those_of_the_volumes_state() {
    let steps = |change: fn(&mut Value), wanted: &str| {
        found(change, wanted).unwrap().steps("openstack", "unluks fetch image --output DIR").join("\n")
    };
    let detached = steps(|_| {}, "vol-1");
    assert!(detached.contains("image=$(openstack image create -f value -c image_id --volume vol-1 "), "{detached}");
    assert!(detached.contains("error*") && detached.ends_with("openstack image delete \"$image\"\n)"), "{detached}");
    assert!(!detached.contains("crash-consistent"));
    let attached = steps(|v| v["status"] = "in-use".into(), "vol-1");
    assert!(
        attached.contains("snapshot create") && attached.contains("--force") && attached.contains("--size 3"),
        "{attached}"
    );
    assert!(attached.contains("crash-consistent") && attached.contains("volume snapshot delete"), "{attached}");
    let snapshot = steps(|v| v["status"] = "in-use".into(), "snap-1");
    assert!(!snapshot.contains("snapshot create") && snapshot.contains("--snapshot snap-1 --size 2"), "{snapshot}");
}

/// Makes an image of a volume that is in use; what `fails` says goes wrong.
fn attached(fails: Option<(&'static str, Value)>) -> (Result<String>, Vec<String>) {
    let mut found = found(|v| v["status"] = "in-use".into(), "vol-1").unwrap();
    found.info.name = None;
    let deleted: &'static [AtomicUsize; 2] = Box::leak(Box::default());
    let api = Fake::new(move |asked| {
        if let Some((which, answer)) = fails.as_ref().filter(|(which, _)| *which == asked) {
            let gone = deleted[usize::from(which.contains("volumes"))].load(Relaxed) > 0;
            return if gone { None } else { Some((if answer.is_null() { 404 } else { 200 }, answer.clone())) };
        }
        Some(match asked {
            "POST snapshots" => (202, json!({"snapshot": {"id": "snap-9"}})),
            "POST volumes" => (202, json!({"volume": {"id": "vol-9"}})),
            "POST volumes/vol-9/action" => (202, json!({"os-volume_upload_image": {"image_id": "img-9"}})),
            "GET images/img-9" => (200, json!({"status": "active"})),
            "GET snapshots/snap-9" if deleted[0].load(Relaxed) == 0 => {
                (200, json!({"snapshot": {"status": "available"}}))
            }
            "GET volumes/vol-9" if deleted[1].load(Relaxed) == 0 => (200, json!({"volume": {"status": "available"}})),
            "DELETE snapshots/snap-9" => (202, json!(deleted[0].fetch_add(1, Relaxed))),
            "DELETE volumes/vol-9" => (202, json!(deleted[1].fetch_add(1, Relaxed))),
            "DELETE images/img-9" => (204, Value::Null),
            "GET messages" => (
                200,
                json!({"messages": [
                    {"created_at": "2026-01-01T00:00:00", "user_message": "older"},
                    {"created_at": "2026-01-02T00:00:00", "user_message": "schedule allocate volume:No space"},
                ]}),
            ),
            _ => return None,
        })
    });
    let mut made = Vec::new();
    let image = found.make_image(&api, &mut made, &Stop::default(), &|_| {});
    assert_eq!(roll_back(&api, &made, &Stop::default()), []);
    (image, api.changes())
}

#[test]
fn a_volume_in_use_goes_through_a_snapshot_and_all_of_it_is_taken_back() {
    let (image, changes) = attached(None);
    assert_eq!(image.unwrap(), "img-9");
    let wanted = ["POST snapshots", "POST volumes", "POST volumes/vol-9/action"];
    let back = ["DELETE images/img-9", "DELETE volumes/vol-9", "DELETE snapshots/snap-9"];
    assert_eq!(changes, [&wanted[..], &back[..]].concat());
}

#[test]
fn each_step_that_fails_takes_back_those_before_it() {
    let (image, changes) = attached(Some(("GET snapshots/snap-9", json!({"snapshot": {"status": "error"}}))));
    let e = image.unwrap_err();
    assert!(e.rule() == "volume.error" && e.to_string().contains("No space"), "{e}");
    assert_eq!(changes, ["POST snapshots", "DELETE snapshots/snap-9"]);
    let (image, changes) = attached(Some(("GET volumes/vol-9", json!({"volume": {"status": "error_managing"}}))));
    assert_eq!(image.unwrap_err().rule(), "volume.error");
    assert_eq!(changes[2..], ["DELETE volumes/vol-9", "DELETE snapshots/snap-9"]);
    // Cinder deletes an image that it could not fill.
    let (image, changes) = attached(Some(("GET images/img-9", Value::Null)));
    assert_eq!(image.unwrap_err().rule(), "volume.upload");
    assert_eq!(changes.len(), 6, "{changes:?}");
}

#[test]
fn a_volume_that_is_still_being_created_is_deleted_when_it_is_there() {
    let asked = AtomicUsize::new(0);
    let api = Fake::new(move |what| match (what, asked.fetch_add(1, Relaxed)) {
        ("GET volumes/vol-9", n) if n < 2 => Some((200, json!({"volume": {"status": "creating"}}))),
        ("GET volumes/vol-9", n) if n < 3 => Some((200, json!({"volume": {"status": "available"}}))),
        ("DELETE volumes/vol-9", 3) => Some((202, Value::Null)),
        _ => None,
    });
    let made = [Resource { kind: ResourceKind::Volume, id: "vol-9".into() }];
    assert_eq!(roll_back(&api, &made, &Stop::default()), []);
    assert_eq!(api.asked.lock().unwrap().len(), 5);
}

#[test]
fn a_volume_that_is_busy_is_not_touched() {
    let found = found(|v| v["status"] = "maintenance".into(), "vol-1").unwrap();
    let api = Fake::new(|_| None);
    let e = found.make_image(&api, &mut Vec::new(), &Stop::default(), &|_| {}).unwrap_err();
    assert_eq!(e.rule(), "volume.status");
    assert_eq!(api.changes(), [""; 0]);
}
