//! Cases of our own: one for each rule of the format that cryptsetup's list leaves out.

use serde_json::{Value, json};

use crate::luks2_validation::{Accept, Case, Draft, Refuse, Unknown, Verdict, case, number, remove};

/// All of them.
pub fn cases() -> Vec<Case> {
    let groups = [
        binary(),
        copies(),
        text(),
        beyond_json(),
        top(),
        tokens(),
        digests(),
        keyslots(),
        areas(),
        segments(),
        config(),
        reencryption(),
    ];
    groups.into_iter().flatten().collect()
}

/// Both copies with the value at `path` (keys apart by dots) set.
fn set(verdict: Verdict, path: &'static str, value: Value) -> Case {
    case(verdict, format!("{path} = {value}"), move |d| d.json(|j| *at(j, path) = value.clone()))
}

/// Both copies without the value at `path`.
fn unset(verdict: Verdict, path: &'static str) -> Case {
    case(verdict, format!("no {path}"), move |d| {
        d.json(|j| {
            let (parent, key) = path.rsplit_once('.').unwrap_or(("", path));
            remove(at(j, parent), key);
        });
    })
}

/// The value at `path`; what is not there is made.
fn at<'a>(json: &'a mut Value, path: &str) -> &'a mut Value {
    path.split('.').filter(|p| !p.is_empty()).fold(json, |j, key| &mut j[key])
}

/// The text of both copies, changed.
fn texts(verdict: Verdict, name: &str, change: impl Fn(String) -> Vec<u8> + Sync + 'static) -> Case {
    case(verdict, name, move |d| d.copies(|c| c.area = Some(change(c.text()))))
}

/// Text put in the place of `from` in both copies.
fn swap(verdict: Verdict, name: &str, from: &'static str, to: impl Into<String>) -> Case {
    let to = to.into();
    texts(verdict, name, move |t| {
        assert!(t.contains(from), "{t}");
        t.replacen(from, &to, 1).into_bytes()
    })
}

fn binary() -> Vec<Case> {
    fn put(verdict: Verdict, name: &str, at: usize, bytes: &'static [u8]) -> Case {
        case(verdict, name, move |d| d.copies(|c| c.put(at, bytes)))
    }
    vec![
        put(Unknown, "version 3", 6, &[0, 3]),
        put(Unknown, "version 0", 6, &[0, 0]),
        case(Refuse, "hdr_offset is another than its place", |d| d.copies(|c| c.hdr_offset += 4096)),
        case(Refuse, "hdr_size 20 KiB is no power of two", |d| d.copies(|c| c.hdr_size = 0x5000)),
        case(Refuse, "hdr_size 8 KiB is too small", |d| d.copies(|c| c.hdr_size = 0x2000)),
        case(Refuse, "hdr_size 0", |d| d.copies(|c| c.hdr_size = 0)),
        case(Refuse, "hdr_size 2^64 - 1", |d| d.copies(|c| c.hdr_size = u64::MAX)),
        put(Refuse, "checksum algorithm unknown", 72, b"md99\0\0\0"),
        put(Refuse, "checksum algorithm empty", 72, b"\0\0\0\0\0\0\0"),
        put(Accept, "checksum algorithm sha512", 72, b"sha512\0"),
        put(Accept, "label fills its field", 24, &[b'L'; 48]),
        put(Accept, "label with bytes that are no UTF-8", 24, b"\xff\xfe\x1b[31m\0"),
        put(Accept, "no uuid", 168, &[0; 40]),
        put(Accept, "padding is not zero", 264, &[1; 184]),
    ]
}

fn copies() -> Vec<Case> {
    fn seqid(c: &mut crate::luks2_validation::Copy, id: u64) {
        c.put(16, &id.to_be_bytes());
    }
    vec![
        case(Accept, "the secondary is newer", |d| seqid(&mut d.secondary, 99)),
        case(Accept, "the primary is newer", |d| seqid(&mut d.primary, 99)),
        case(Accept, "the newer primary has bad JSON", |d| {
            seqid(&mut d.primary, 99);
            remove(&mut d.primary.json, "keyslots");
        }),
        case(Accept, "the newer secondary has bad JSON", |d| {
            seqid(&mut d.secondary, 99);
            remove(&mut d.secondary.json, "keyslots");
        }),
        case(Refuse, "both copies have bad JSON", |d| d.json(|j| remove(j, "keyslots"))),
        case(Refuse, "both magics are gone", |d| d.copies(crate::luks2_validation::Copy::kill)),
        case(Accept, "the primary says 32 KiB, the secondary lies at 16 KiB", |d| d.primary.hdr_size = 0x8000),
        case(Refuse, "the only copy is a secondary in a place that is not its size", |d| {
            d.primary.kill();
            (d.secondary.at, d.secondary.hdr_offset) = (0x8000, 0x8000);
        }),
        case(Refuse, "the only copy is a secondary at 20 KiB", |d| {
            d.primary.kill();
            (d.secondary.at, d.secondary.hdr_offset) = (0x5000, 0x5000);
        }),
        case(Refuse, "a primary's magic on the secondary", |d| {
            d.primary.kill();
            d.secondary.put(0, b"LUKS");
        }),
        case(Refuse, "a secondary's magic on the primary", |d| {
            d.secondary.kill();
            d.primary.put(0, b"SKUL");
        }),
        case(Refuse, "the file ends in the keyslots", |d| d.length = 0x8000 + (512 << 10) - 4096),
        case(Accept, "the file ends where the keyslots do", |d| d.length = 0x8000 + (512 << 10)),
        case(Refuse, "the file ends in the secondary", |d| d.length = 0x6000),
        case(Refuse, "the file ends in the binary header", |d| d.length = 0x800),
        case(Accept, "the file ends before the data", |d| d.length = 8 << 20),
    ]
}

fn text() -> Vec<Case> {
    let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
    vec![
        texts(Refuse, "whitespace before the JSON", |t| format!(" {t}").into_bytes()),
        texts(Refuse, "an empty area", |_| Vec::new()),
        texts(Refuse, "an empty object", |_| b"{}".to_vec()),
        texts(Refuse, "the closing brace is missing", |t| t.as_bytes()[..t.len() - 1].to_vec()),
        texts(Refuse, "a second object", |t| format!("{t}{{}}").into_bytes()),
        texts(Accept, "whitespace behind the JSON", |t| format!("{t} \n").into_bytes()),
        texts(Accept, "a line feed behind the JSON", |t| format!("{t}\n").into_bytes()),
        texts(Accept, "whitespace before the closing brace", |t| {
            format!("{} \n\t\r}}", &t[..t.len() - 1]).into_bytes()
        }),
        swap(Accept, "an escaped key", "\"keyslots\":{\"0\"", "\"keyslots\":{\"\\u0030\""),
        swap(Accept, "an escaped value", "\"type\":\"crypt\"", "\"type\":\"\\u0063rypt\""),
        swap(Accept, "an unknown key at the top", "{\"config\"", "{\"future\":[1,2.5,null,true],\"config\""),
        swap(
            Accept,
            "the last of two equal keys holds",
            "\"sector_size\":512",
            "\"sector_size\":100,\"sector_size\":512",
        ),
        swap(
            Refuse,
            "the last of two equal keys is bad",
            "\"sector_size\":512",
            "\"sector_size\":512,\"sector_size\":100",
        ),
        swap(
            Accept,
            "a token's text beyond ASCII",
            "\"tokens\":{}",
            "\"tokens\":{\"0\":{\"type\":\"é\u{1f600}\\n\",\"keyslots\":[]}}",
        ),
        texts(Accept, "a byte that is no UTF-8 in a string", |t| {
            let mut bytes = t.replacen("\"tokens\":{}", "\"tokens\":{},\"future\":\"@@\"", 1).into_bytes();
            let place = bytes.windows(2).position(|w| w == b"@@").unwrap();
            bytes[place] = 0xff;
            bytes
        }),
        swap(Accept, "an escaped NUL", "\"tokens\":{}", "\"tokens\":{},\"future\":\"\\u0000\""),
        swap(
            Accept,
            "a number of 29 digits that nobody reads",
            "\"tokens\":{}",
            "\"tokens\":{},\"future\":99999999999999999999999999999",
        ),
        swap(Accept, "a token 00", "\"tokens\":{}", "\"tokens\":{\"00\":{\"type\":\"a\",\"keyslots\":[]}}"),
        swap(Accept, "a token 32", "\"tokens\":{}", "\"tokens\":{\"32\":{\"type\":\"a\",\"keyslots\":[]}}"),
        swap(Refuse, "a plus sign", "\"sector_size\":512", "\"sector_size\":+512"),
        swap(Refuse, "a bare minus", "\"sector_size\":512", "\"sector_size\":-"),
        swap(Refuse, "sector_size 512.0", "\"sector_size\":512", "\"sector_size\":512.0"),
        swap(Refuse, "sector_size 5.12e2", "\"sector_size\":512", "\"sector_size\":5.12e2"),
        swap(Refuse, "memory 64.0", "\"memory\":64", "\"memory\":64.0"),
        swap(Refuse, "time 4e0", "\"time\":4", "\"time\":4e0"),
        swap(Refuse, "sector_size beyond 64 bits", "\"sector_size\":512", "\"sector_size\":18446744073709552000"),
        swap(Refuse, "sector_size null", "\"sector_size\":512", "\"sector_size\":null"),
        swap(Refuse, "sector_size true", "\"sector_size\":512", "\"sector_size\":true"),
        swap(Accept, "nested nearly too deep", "{\"config\"", format!("{{\"future\":{},\"config\"", nested(30))),
        swap(Refuse, "nested too deep", "{\"config\"", format!("{{\"future\":{},\"config\"", nested(31))),
        swap(Accept, "nested as deep, with nothing in the last", "{\"config\"", {
            format!("{{\"future\":{},\"config\"", nested(31).replace('1', ""))
        }),
        swap(Refuse, "nested a thousand deep", "{\"config\"", format!("{{\"future\":{},\"config\"", nested(1000))),
    ]
}

/// What json-c reads although it is not JSON. cryptsetup writes none of it, and we do not read it.
fn beyond_json() -> Vec<Case> {
    let future = |name, value: &str| swap(Refuse, name, "\"tokens\":{}", format!("\"tokens\":{{}},\"future\":{value}"));
    let cases = vec![
        swap(Refuse, "a comment", "{\"config\"", "{/* c */\"config\""),
        swap(Refuse, "single quotes", "\"type\":\"crypt\"", "'type':'crypt'"),
        swap(Refuse, "a leading zero", "\"sector_size\":512", "\"sector_size\":0512"),
        future("a comma behind the last value", "[1,]"),
        future("NaN", "NaN"),
        future("TRUE", "TRUE"),
        future("a line feed in a string", "\"a\nb\""),
        future("half of a surrogate pair", "\"\\ud800\""),
        future("a number above all floats", "1e999"),
    ];
    cases.into_iter().map(Case::stricter).collect()
}

fn top() -> Vec<Case> {
    let mut cases = Vec::new();
    for key in ["keyslots", "tokens", "segments", "digests", "config"] {
        cases.push(unset(Refuse, key));
        cases.push(set(Refuse, key, json!([])));
        cases.push(set(Refuse, key, Value::Null));
    }
    cases.push(set(Refuse, "segments", json!({})));
    cases.push(case(Accept, "no keyslots at all", |d| {
        d.json(|j| {
            j["keyslots"] = json!({});
            j["digests"]["0"]["keyslots"] = json!([]);
        });
    }));
    cases
}

fn tokens() -> Vec<Case> {
    let token = |verdict, token: Value| set(verdict, "tokens.0", token);
    vec![
        token(Accept, json!({"type": "future", "keyslots": ["0", "1"], "more": {"a": [1.5]}})),
        token(Refuse, json!({"type": "", "keyslots": []})),
        token(Refuse, json!({"type": 1, "keyslots": []})),
        token(Refuse, json!({"keyslots": []})),
        token(Refuse, json!({"type": "a"})),
        token(Refuse, json!({"type": "a", "keyslots": "0"})),
        token(Refuse, json!({"type": "a", "keyslots": [0]})),
        token(Refuse, json!("a")),
        token(Accept, json!({"type": "luks2-keyring", "keyslots": ["0"], "key_description": "d"})),
        set(Refuse, "tokens.x", json!({"type": "a", "keyslots": []})),
        set(Refuse, "tokens.-1", json!({"type": "a", "keyslots": []})),
        set(Refuse, "tokens.1x", json!({"type": "a", "keyslots": []})),
    ]
}

fn digests() -> Vec<Case> {
    vec![
        unset(Refuse, "digests.0"),
        unset(Refuse, "digests.0.type"),
        unset(Refuse, "digests.0.keyslots"),
        unset(Refuse, "digests.0.segments"),
        set(Refuse, "digests.0.type", json!(1)),
        set(Refuse, "digests.0.type", json!("")),
        set(Accept, "digests.0.keyslots", json!(["0", "1", "2", "3", "4", "4"])),
        set(Refuse, "digests.0.keyslots", json!("0")),
        set(Refuse, "digests.0.keyslots", json!([0, 1, 2, 3, 4])),
        set(Refuse, "digests.0.segments", json!({})),
        set(Refuse, "digests.0.segments", json!([])),
        set(Refuse, "digests.0.segments", json!([0])),
        set(Refuse, "digests.x", json!({"type": "a", "keyslots": [], "segments": []})),
        set(Accept, "digests.7", json!({"type": "future", "keyslots": [], "segments": []})),
        set(Refuse, "digests.0", json!(7)),
        // What a digest holds is looked at when it is used, not before.
        set(Accept, "digests.0.iterations", json!(1000.0)),
        unset(Accept, "digests.0.salt"),
        unset(Accept, "digests.0.hash"),
        set(Accept, "digests.0.digest", json!("not base64")),
    ]
}

fn keyslots() -> Vec<Case> {
    let all = |verdict, keyslot: Value| set(verdict, "keyslots.4", keyslot);
    vec![
        all(
            Accept,
            json!({"type": "future", "key_size": 16, "area": {"type": "raw", "offset": "294912", "size": "65536"}}),
        ),
        all(Refuse, json!({"type": "future", "key_size": 16})),
        all(Refuse, json!({"key_size": 16, "area": {"type": "raw", "offset": "294912", "size": "65536"}})),
        all(Refuse, json!([])),
        case(Refuse, "keyslots.x", |d| rename_keyslot(d, "x")),
        case(Refuse, "keyslots.-4", |d| rename_keyslot(d, "-4")),
        case(Refuse, "keyslots. 4", |d| rename_keyslot(d, " 4")),
        case(Accept, "keyslots.31", |d| rename_keyslot(d, "31")),
        unset(Refuse, "keyslots.0.type"),
        unset(Refuse, "keyslots.0.key_size"),
        set(Refuse, "keyslots.0.key_size", json!("16")),
        set(Refuse, "keyslots.0.key_size", json!(-16)),
        set(Refuse, "keyslots.0.key_size", json!(4_294_967_296_u64)),
        set(Accept, "keyslots.0.key_size", json!(0)),
        set(Accept, "keyslots.0.key_size", json!(2_147_483_648_u64)),
        set(Refuse, "keyslots.0.type", json!("")),
        unset(Refuse, "keyslots.0.kdf"),
        unset(Refuse, "keyslots.0.kdf.type"),
        unset(Refuse, "keyslots.0.kdf.salt"),
        unset(Refuse, "keyslots.0.kdf.time"),
        unset(Refuse, "keyslots.0.kdf.memory"),
        unset(Refuse, "keyslots.0.kdf.cpus"),
        unset(Refuse, "keyslots.2.kdf.hash"),
        unset(Refuse, "keyslots.2.kdf.iterations"),
        // cryptsetup's repair in memory drops every key that the derivation does not have, not only those of another.
        set(Accept, "keyslots.0.kdf.more", json!(1)),
        set(Accept, "keyslots.2.kdf.more", json!(1)),
        set(Refuse, "keyslots.0.kdf.memory", json!("64")),
        set(Refuse, "keyslots.2.kdf.hash", json!(1)),
        // What a derivation can be given is looked at when it is used, not before.
        set(Accept, "keyslots.0.kdf.memory", json!(0)),
        set(Refuse, "keyslots.0.kdf.memory", json!(-1)).stricter(),
        set(Accept, "keyslots.0.kdf.memory", json!(4_294_967_296_u64)),
        set(Accept, "keyslots.2.kdf.iterations", json!(0)),
        set(Accept, "keyslots.0.kdf.salt", json!("!!")),
        set(Refuse, "keyslots.0.kdf.salt", json!("")),
        set(Accept, "keyslots.0.kdf", json!({"type": "future"})),
        set(Refuse, "keyslots.0.kdf", json!({"type": 1})),
        unset(Refuse, "keyslots.0.af"),
        unset(Refuse, "keyslots.0.af.type"),
        unset(Refuse, "keyslots.0.af.hash"),
        unset(Refuse, "keyslots.0.af.stripes"),
        set(Refuse, "keyslots.0.af.stripes", json!("4000")),
        set(Accept, "keyslots.0.af.stripes", json!(1)),
        set(Refuse, "keyslots.0.af.type", json!("future")),
        set(Refuse, "keyslots.0.af.hash", json!("")),
        set(Accept, "keyslots.0.priority", json!(0)),
        set(Accept, "keyslots.0.priority", json!(2)),
        set(Accept, "keyslots.0.priority", json!("2")),
        set(Accept, "keyslots.0.priority", json!(7)),
        set(Accept, "keyslots.0.unknown", json!([1])),
    ]
}

/// Gives keyslot 4 another name everywhere.
fn rename_keyslot(d: &mut Draft, to: &str) {
    d.json(|j| {
        let keyslot = j["keyslots"].as_object_mut().unwrap().remove("4").unwrap();
        j["keyslots"][to] = keyslot;
        j["digests"]["0"]["keyslots"] = json!(["0", "1", "2", "3", to]);
    });
}

fn areas() -> Vec<Case> {
    vec![
        unset(Refuse, "keyslots.0.area"),
        unset(Refuse, "keyslots.0.area.type"),
        unset(Refuse, "keyslots.0.area.offset"),
        unset(Refuse, "keyslots.0.area.size"),
        unset(Refuse, "keyslots.0.area.encryption"),
        unset(Refuse, "keyslots.0.area.key_size"),
        set(Refuse, "keyslots.0.area.offset", json!(32768)),
        set(Refuse, "keyslots.0.area.offset", json!("-1")),
        set(Refuse, "keyslots.0.area.offset", json!("+32768")),
        set(Refuse, "keyslots.0.area.offset", json!("")),
        set(Refuse, "keyslots.0.area.offset", json!("0x8000")),
        set(Refuse, "keyslots.0.area.size", json!("0")),
        set(Refuse, "keyslots.0.area.encryption", json!(1)),
        set(Refuse, "keyslots.0.area.encryption", json!("")),
        set(Refuse, "keyslots.0.area.type", json!("future")),
        set(Accept, "keyslots.0.area.key_size", json!(0)),
        set(Accept, "keyslots.0.area.encryption", json!("rot13-xts-plain64")),
        set(Accept, "keyslots.4.area.offset", json!("491520")),
        set(Refuse, "keyslots.4.area.offset", json!("492032")),
    ]
}

fn segments() -> Vec<Case> {
    let digest_for = |j: &mut Value, ids: &[&str]| j["digests"]["0"]["segments"] = json!(ids);
    let two = |verdict, name: &str, first: Value, second: Value| {
        case(verdict, format!("segments: {name}"), move |d: &mut Draft| {
            d.json(|j| {
                for (id, fields) in [("0", &first), ("1", &second)] {
                    let mut s = j["segments"]["0"].clone();
                    fields.as_object().unwrap().iter().for_each(|(k, v)| s[k] = v.clone());
                    j["segments"][id] = s;
                }
                digest_for(j, &["0", "1"]);
            });
        })
    };
    let opal = json!({"type": "hw-opal", "offset": "16777216", "size": "4096", "opal_segment_number": 1,
                      "opal_key_size": 32, "opal_segment_size": "4096"});
    let opal_without = |key: &str, value: Value| {
        let mut s = opal.clone();
        s[key] = value;
        if s[key].is_null() {
            remove(&mut s, key);
        }
        set(Refuse, "segments.0", s).since(2, 7)
    };
    vec![
        case(Refuse, "the only segment is 1", |d| rename_segment(d, "1")),
        case(Refuse, "the only segment is x", |d| rename_segment(d, "x")),
        two(Accept, "two that touch", json!({"size": "4096"}), json!({"offset": "16781312"})),
        two(Refuse, "two that overlap", json!({"size": "4608"}), json!({"offset": "16781312"})),
        two(Refuse, "a dynamic one before another", json!({}), json!({"offset": "16781312", "size": "4096"})),
        two(Refuse, "two dynamic ones", json!({}), json!({"offset": "16781312"})),
        two(Accept, "a backup one last", json!({}), json!({"flags": ["backup-previous"]})),
        two(Refuse, "a backup one first", json!({"flags": ["backup-previous"]}), json!({})),
        two(
            Accept,
            "one with a flag that nobody knows",
            json!({"size": "4096", "flags": ["future"]}),
            json!({"offset": "16781312"}),
        ),
        set(Refuse, "segments.0.offset", json!("16777217")),
        set(Refuse, "segments.0.offset", json!(16777216)),
        set(Accept, "segments.0.offset", json!("0016777216")),
        set(Refuse, "segments.0.offset", json!(" 16777216")),
        set(Refuse, "segments.0.offset", json!("16777216 ")),
        set(Refuse, "segments.0.type", json!("")),
        set(Refuse, "segments.0.iv_tweak", json!("")),
        set(Refuse, "segments.0.sector_size", json!(4_294_967_808_u64)),
        set(Refuse, "segments.0.size", json!("0")),
        set(Accept, "segments.0.iv_tweak", json!("18446744073709551615")),
        set(Refuse, "segments.0.iv_tweak", json!("18446744073709551616")),
        set(Refuse, "segments.0.iv_tweak", json!(0)),
        set(Refuse, "segments.0.sector_size", json!(0)),
        set(Accept, "segments.0.sector_size", json!(4096)),
        set(Accept, "segments.0.sector_size", json!(1536)),
        case(Refuse, "size is not of whole crypt sectors", |d| {
            d.json(|j| (j["segments"]["0"]["sector_size"], j["segments"]["0"]["size"]) = (json!(4096), json!("4608")));
        }),
        set(Accept, "segments.0.encryption", json!("rot13")),
        set(Accept, "segments.0.flags", json!([])),
        set(Accept, "segments.0.integrity", integrity()),
        case(Refuse, "integrity without journal_encryption", |d| no_integrity(d, "journal_encryption")),
        case(Refuse, "integrity without journal_integrity", |d| no_integrity(d, "journal_integrity")),
        case(Refuse, "integrity without type", |d| no_integrity(d, "type")),
        set(Refuse, "segments.0.integrity", json!("hmac(sha256)")),
        set(Accept, "segments.0", opal.clone()),
        opal_without("opal_segment_number", Value::Null),
        opal_without("opal_key_size", Value::Null),
        opal_without("opal_segment_size", Value::Null),
        opal_without("opal_segment_size", json!("512")),
        opal_without("size", json!("dynamic")),
    ]
}

fn integrity() -> Value {
    json!({"type": "hmac(sha256)", "journal_encryption": "none", "journal_integrity": "none"})
}

fn no_integrity(d: &mut Draft, key: &str) {
    d.json(|j| {
        let mut fields = integrity();
        remove(&mut fields, key);
        j["segments"]["0"]["integrity"] = fields;
    });
}

/// Gives the segment another name everywhere.
fn rename_segment(d: &mut Draft, to: &str) {
    d.json(|j| {
        let segment = j["segments"].as_object_mut().unwrap().remove("0").unwrap();
        j["segments"][to] = segment;
        j["digests"]["0"]["segments"] = json!([to]);
    });
}

fn config() -> Vec<Case> {
    vec![
        unset(Refuse, "config.json_size"),
        unset(Refuse, "config.keyslots_size"),
        set(Refuse, "config.json_size", json!(12288)),
        set(Refuse, "config.keyslots_size", json!(524288)),
        set(Refuse, "config.keyslots_size", json!("0")),
        set(Accept, "config.flags", json!(["allow-discards", "future"])),
        set(Refuse, "config.flags", json!("allow-discards")),
        set(Refuse, "config.flags", json!([1])),
        set(Accept, "config.requirements", json!({})),
        set(Accept, "config.requirements", json!({"mandatory": []})),
        set(Accept, "config.requirements", json!({"mandatory": ["time-travel"]})),
        set(Refuse, "config.requirements", json!({"mandatory": "time-travel"})),
        set(Refuse, "config.requirements", json!({"mandatory": [1]})),
        set(Refuse, "config.requirements", json!({"mandatory": {}})),
        set(Refuse, "config.requirements", json!(["time-travel"])),
        set(Refuse, "config.requirements", json!("time-travel")),
        case(Accept, "detached: the data begin at 0, keyslots_size is free", |d| {
            d.json(|j| j["segments"]["0"]["offset"] = json!("0"));
        }),
        case(Accept, "detached: keyslots_size 128 MiB", |d| detached_with(d, 128 << 20)),
        case(Refuse, "detached: keyslots_size above 128 MiB", |d| detached_with(d, (128 << 20) + 4096)),
        case(Accept, "the data begin right behind the keyslots", |d| {
            d.json(|j| j["segments"]["0"]["offset"] = json!("557056"));
        }),
        case(Refuse, "the data begin within the keyslots", |d| {
            d.json(|j| j["segments"]["0"]["offset"] = json!("556544"));
        }),
    ]
}

fn detached_with(d: &mut Draft, keyslots_size: u64) {
    d.length = 200 << 20;
    d.json(|j| {
        j["segments"]["0"]["offset"] = json!("0");
        j["config"]["keyslots_size"] = keyslots_size.to_string().into();
    });
}

/// The keyslot of type reencrypt.
fn state(j: &mut Value) -> &mut Value {
    j["keyslots"].as_object_mut().unwrap().values_mut().find(|k| k["type"] == "reencrypt").unwrap()
}

fn reencryption() -> Vec<Case> {
    fn change(verdict: Verdict, name: &str, change: impl Fn(&mut Value) + Sync + 'static) -> Case {
        case(verdict, format!("reencryption: {name}"), move |d| d.json(&change)).reencrypting()
    }
    let mut cases = vec![
        change(Accept, "as cryptsetup starts it", |_| ()),
        change(Refuse, "without a requirement", |j| remove(&mut j["config"], "requirements")),
        change(Refuse, "with two requirements", |j| {
            j["config"]["requirements"]["mandatory"] = json!(["online-reencrypt", "online-reencrypt-v2"]);
        }),
        change(Accept, "of a version that nobody knows", |j| {
            j["config"]["requirements"]["mandatory"] = json!(["online-reencrypt-v9"]);
        }),
        change(Refuse, "two keyslots of type reencrypt", |j| {
            let mut second = state(j).clone();
            let end = 32768 + number(&j["config"]["keyslots_size"]);
            let area = &mut state(j)["area"];
            area["size"] = json!("4096");
            (second["area"]["offset"], second["area"]["size"]) = ((end - 4096).to_string().into(), json!("4096"));
            j["keyslots"]["9"] = second;
        }),
        change(Refuse, "key_size 16", |j| state(j)["key_size"] = json!(16)),
        change(Accept, "mode encrypt", |j| state(j)["mode"] = json!("encrypt")),
        change(Refuse, "mode of another name", |j| state(j)["mode"] = json!("recrypt")),
        change(Accept, "direction backward", |j| state(j)["direction"] = json!("backward")),
        change(Refuse, "direction of another name", |j| state(j)["direction"] = json!("sideways")),
        change(Refuse, "area without a type", |j| remove(&mut state(j)["area"], "type")),
        change(Accept, "area of unknown type", |j| state(j)["area"]["type"] = json!("future")),
        change(Refuse, "checksum area without a hash", |j| remove(&mut state(j)["area"], "hash")),
        change(Refuse, "checksum area without a sector_size", |j| remove(&mut state(j)["area"], "sector_size")),
        change(Refuse, "checksum area with sector_size 100", |j| state(j)["area"]["sector_size"] = json!(100)),
        change(Accept, "journal area", |j| state(j)["area"]["type"] = json!("journal")),
        change(Accept, "none area", |j| state(j)["area"]["type"] = json!("none")),
        change(Refuse, "datashift area without shift_size", |j| state(j)["area"]["type"] = json!("datashift")),
    ];
    for key in ["mode", "direction", "key_size", "area"] {
        cases.push(change(Refuse, &format!("no {key}"), move |j| remove(state(j), key)));
    }
    for flag in ["backup-previous", "backup-final"] {
        cases.push(change(Refuse, &format!("no segment {flag}"), move |j| {
            for s in j["segments"].as_object_mut().unwrap().values_mut() {
                if s["flags"] == json!([flag]) {
                    s["flags"] = json!(["backup-other"]);
                }
            }
        }));
    }
    cases.push(case(Refuse, "reencryption: a requirement without a keyslot", |d| {
        d.json(|j| j["config"]["requirements"] = json!({"mandatory": ["online-reencrypt-v2"]}));
    }));
    cases
}
