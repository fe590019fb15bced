//! Field by field against what `cryptsetup luksDump` says of the same header.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

/// The values behind `name:` in the lines of luksDump, in order.
fn values<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    text.lines().filter_map(|l| l.trim().strip_prefix(name)?.strip_prefix(':')).map(str::trim).collect()
}

fn value<'a>(text: &'a str, name: &str) -> &'a str {
    values(text, name).first().copied().unwrap_or_else(|| panic!("luksDump has no {name}:\n{text}"))
}

fn number(text: &str) -> u64 {
    let digits = text.split_whitespace().next().unwrap();
    digits.parse().unwrap_or_else(|_| panic!("no number: {text}"))
}

/// The hexadecimal bytes of a value that goes on in the lines after it.
fn hex_after(text: &str, name: &str) -> String {
    let start = text.find(&format!("{name}:")).unwrap_or_else(|| panic!("luksDump has no {name}")) + name.len() + 1;
    let is_byte = |w: &&str| w.len() == 2 && w.bytes().all(|b| b.is_ascii_hexdigit());
    text[start..].split_whitespace().take_while(is_byte).collect()
}

/// LUKS1: the whole of luksDump.
pub fn check_luks1(report: &Value, dump: &str) {
    let r = report;
    let (segment, digest) = (&r["segments"][0], &r["digests"][0]);
    let encryption = format!("{}-{}", value(dump, "Cipher name"), value(dump, "Cipher mode"));
    assert_eq!(segment["encryption"], encryption);
    assert_eq!(segment["offset"], number(value(dump, "Payload offset")) * 512);
    assert_eq!(segment["key_size"], number(value(dump, "MK bits")) / 8);
    assert_eq!(digest["hash"], value(dump, "Hash spec"));
    assert_eq!(digest["digest"], hex_after(dump, "MK digest"));
    assert_eq!(digest["salt"], hex_after(dump, "MK salt"));
    assert_eq!(digest["iterations"], number(value(dump, "MK iterations")));
    assert_eq!(r["uuid"], value(dump, "UUID"));
    let slots = r["keyslots"].as_array().unwrap();
    assert_eq!(slots.len(), 8);
    for (n, slot) in slots.iter().enumerate() {
        let theirs = value(dump, &format!("Key Slot {n}"));
        let state = if theirs == "ENABLED" { "active" } else { "disabled" };
        assert_eq!((&slot["id"], &slot["state"]), (&json!(n), &json!(state)), "{theirs}");
        if theirs != "ENABLED" {
            continue;
        }
        let start = dump.find(&format!("Key Slot {n}:")).unwrap();
        let rest = &dump[start..];
        assert_eq!(slot["kdf"]["iterations"], number(value(rest, "Iterations")));
        assert_eq!(slot["kdf"]["salt"], hex_after(rest, "Salt"));
        assert_eq!(slot["kdf"]["hash"], value(dump, "Hash spec"));
        assert_eq!(slot["area"]["offset"], number(value(rest, "Key material offset")) * 512);
        assert_eq!(slot["af"]["stripes"], number(value(rest, "AF stripes")));
    }
}

/// LUKS2: luksDump's lines for the binary header, and `--dump-json-metadata` for the rest.
pub fn check_luks2(report: &Value, dump: &str, theirs: &Value) {
    let r = report;
    assert_eq!(r["seqid"], number(value(dump, "Epoch")));
    assert_eq!(r["metadata_size"], number(value(dump, "Metadata area")));
    assert_eq!(r["keyslots_area"]["size"], number(value(dump, "Keyslots area")));
    assert_eq!(r["uuid"], value(dump, "UUID"));
    assert_eq!(r["label"].as_str().unwrap_or("(no label)"), value(dump, "Label"));
    assert_eq!(r["subsystem"].as_str().unwrap_or("(no subsystem)"), value(dump, "Subsystem"));
    assert_eq!(r["json"], *theirs, "the JSON area");

    let config = &theirs["config"];
    assert_eq!(r["flags"], config.get("flags").cloned().unwrap_or(json!([])));
    assert_eq!(r["requirements"], config["requirements"].get("mandatory").cloned().unwrap_or(json!([])));
    let (keyslots, segments) = (members(theirs, "keyslots"), members(theirs, "segments"));
    let (digests, tokens) = (members(theirs, "digests"), members(theirs, "tokens"));
    each(&r["keyslots"], keyslots, |ours, theirs| keyslot(ours, theirs, digests));
    each(&r["segments"], segments, |ours, theirs| segment(ours, theirs, digests));
    each(&r["digests"], digests, digest);
    each(&r["tokens"], tokens, |ours, theirs| {
        assert_eq!(ours["content"], *theirs);
        assert_eq!((&ours["type"], &ours["keyslots"]), (&theirs["type"], &ids(&theirs["keyslots"])));
    });

    // What luksDump itself works out.
    let reencrypts = r["requirements"].as_array().unwrap().iter().any(|r| r.as_str().unwrap().contains("reencrypt"));
    for (id, slot) in keyslots {
        let line = dump.lines().skip_while(|l| *l != "Keyslots:").find(|l| l.starts_with(&format!("  {id}: ")));
        let unbound = line.unwrap_or_else(|| panic!("luksDump has no keyslot {id}")).ends_with("(unbound)");
        let ours = r["keyslots"].as_array().unwrap().iter().find(|k| k["id"].to_string().as_str() == id).unwrap();
        // While a reencryption is under way, luksDump calls all unbound that does not open the segment of its end.
        assert!(reencrypts || ours["unbound"] == unbound, "{slot}");
    }
}

fn members<'a>(json: &'a Value, section: &str) -> &'a Map<String, Value> {
    json[section].as_object().unwrap()
}

/// Compares our array with their object, member by member.
fn each(ours: &Value, theirs: &Map<String, Value>, check: impl Fn(&Value, &Value)) {
    let ours = ours.as_array().unwrap();
    assert_eq!(ours.len(), theirs.len());
    let order: Vec<_> = ours.iter().map(|o| o["id"].as_u64().unwrap()).collect();
    assert!(order.is_sorted());
    for o in ours {
        check(o, &theirs[&o["id"].to_string()]);
    }
}

/// `["0", "1"]` as `[0, 1]`.
fn ids(texts: &Value) -> Value {
    texts.as_array().unwrap().iter().map(decimal).collect()
}

fn decimal(text: &Value) -> Value {
    text.as_str().map_or(Value::Null, |t| json!(t.parse::<u64>().unwrap()))
}

/// Base64 as lower-case hex.
fn hex(base64: &Value) -> Value {
    base64.as_str().map_or(Value::Null, |t| hex::encode(STANDARD.decode(t).unwrap()).into())
}

/// The digest whose `section` names `id`.
fn digest_of(digests: &Map<String, Value>, section: &str, id: &Value) -> Value {
    let id = json!(id.to_string());
    let found = digests.iter().find(|(_, d)| d[section].as_array().unwrap().contains(&id));
    found.map_or(Value::Null, |(n, _)| json!(n.parse::<u64>().unwrap()))
}

fn keyslot(ours: &Value, theirs: &Value, digests: &Map<String, Value>) {
    assert_eq!(ours["type"], theirs["type"]);
    assert_eq!(ours["key_size"], theirs["key_size"]);
    assert_eq!(ours["priority"], theirs.get("priority").cloned().unwrap_or(json!(1)));
    assert_eq!(ours["digest"], digest_of(digests, "keyslots", &ours["id"]));
    let (a, b) = (&ours["area"], &theirs["area"]);
    assert_eq!((&a["offset"], &a["size"]), (&decimal(&b["offset"]), &decimal(&b["size"])));
    match theirs["type"].as_str().unwrap() {
        "luks2" => {
            assert_eq!((&a["encryption"], &a["key_size"]), (&b["encryption"], &b["key_size"]));
            assert_eq!(ours["af"], theirs["af"]);
            let (a, b) = (&ours["kdf"], &theirs["kdf"]);
            for field in ["type", "hash", "iterations", "time", "memory", "cpus"] {
                assert_eq!(a[field], b[field], "{field}");
            }
            if a["type"] == "pbkdf2" || a["type"].as_str().unwrap().starts_with("argon2") {
                assert_eq!(a["salt"], hex(&b["salt"]));
            }
        }
        "reencrypt" => {
            let r = &ours["reencryption"];
            assert_eq!((&r["mode"], &r["direction"]), (&theirs["mode"], &theirs["direction"]));
            assert_eq!((&r["resilience"], &r["hash"]), (&b["type"], &b["hash"]));
            assert_eq!((&r["sector_size"], &r["shift_size"]), (&b["sector_size"], &decimal(&b["shift_size"])));
        }
        _ => assert_eq!((&ours["kdf"], &ours["reencryption"]), (&Value::Null, &Value::Null)),
    }
}

fn segment(ours: &Value, theirs: &Value, digests: &Map<String, Value>) {
    assert_eq!(ours["type"], theirs["type"]);
    assert_eq!(ours["offset"], decimal(&theirs["offset"]));
    let size = Some(&theirs["size"]).filter(|s| s.as_str() != Some("dynamic"));
    assert_eq!(ours["size"], size.map_or(Value::Null, decimal));
    assert_eq!(ours["flags"], theirs.get("flags").cloned().unwrap_or(json!([])));
    assert_eq!(ours["digest"], digest_of(digests, "segments", &ours["id"]));
    if theirs["type"] == "crypt" {
        assert_eq!(ours["encryption"], theirs["encryption"]);
        assert_eq!(ours["sector_size"], theirs["sector_size"]);
        assert_eq!(ours["iv_tweak"], decimal(&theirs["iv_tweak"]));
        for field in ["type", "journal_encryption", "journal_integrity", "key_size"] {
            assert_eq!(ours["integrity"][field], theirs["integrity"][field], "{field}");
        }
    }
}

fn digest(ours: &Value, theirs: &Value) {
    assert_eq!(ours["type"], theirs["type"]);
    assert_eq!((&ours["keyslots"], &ours["segments"]), (&ids(&theirs["keyslots"]), &ids(&theirs["segments"])));
    if theirs["type"] == "pbkdf2" {
        assert_eq!((&ours["hash"], &ours["iterations"]), (&theirs["hash"], &theirs["iterations"]));
        assert_eq!((&ours["salt"], &ours["digest"]), (&hex(&theirs["salt"]), &hex(&theirs["digest"])));
    }
}
