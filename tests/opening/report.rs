//! Reports out of the library follow the schemas of docs/, without the program.

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use unluks::format::Format;
use unluks::locate::Ways;
use unluks::scan::report::{Disk, Report};
use unluks::{Image, OpenOptions, ReadAt, json};

use crate::support::{Golden, PARTITION, in_mbr, in_qcow2, open, read_stored};

/// What the schema of that name says against a report.
fn faults(schema: &str, report: &Value) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(schema);
    let schema: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let validator = jsonschema::draft202012::new(&schema).unwrap();
    validator.iter_errors(report).map(|e| format!("{}: {e}", e.instance_path())).collect()
}

/// The report as whoever reads the JSON gets it.
fn parsed(text: &str, schema: &str) -> Value {
    let report: Value = serde_json::from_str(text).unwrap();
    let faults = faults(schema, &report);
    assert!(faults.is_empty(), "against {schema}: {}\n{text}", faults.join("\n"));
    report
}

fn inspected(image: &Image, header: Option<&str>) -> Value {
    let report = image.report(Path::new("image"), header.map(Path::new));
    parsed(&json::pretty(&report).unwrap(), "inspect.schema.json")
}

fn inspect(image: Vec<u8>, header: Option<Vec<u8>>) -> Value {
    let name = header.as_ref().map(|_| "header");
    let header = header.map(|bytes| -> Arc<dyn ReadAt> { Arc::new(bytes) });
    inspected(&open(Arc::new(image), header).0.unwrap(), name)
}

#[test]
fn reports_of_headers_follow_their_schema() {
    for name in ["l1-two-slots", "l1-aes-xts-512-sha256", "l2-argon2id", "l2-adiantum", "l2-sector-2048"] {
        let golden = Golden::read(name);
        let len = golden.image.len();
        let report = inspect(golden.image, None);
        assert_eq!(report["image"]["size"], len, "{name}");
        assert_eq!((&report["container"], &report["header"]), (&Value::Null, &Value::Null), "{name}");
        assert!(report["keyslots"][0]["kdf"]["cost"]["seconds"].is_f64(), "{name}: {}", report["keyslots"][0]);
    }
}

#[test]
fn a_report_says_where_the_container_was_found() {
    let golden = Golden::read("l2-argon2id");
    let len = golden.image.len();
    let partition = inspect(in_mbr(&golden.image), None);
    assert_eq!(partition["container"]["size"], len.next_multiple_of(512));
    assert!(partition["container"]["notes"][0].as_str().unwrap().contains("partition"), "{partition}");
    assert_eq!(partition["image"]["size"], len.next_multiple_of(512) + usize::try_from(PARTITION).unwrap());
    let qcow2 = inspect(in_qcow2(&golden.image), None);
    assert_eq!(qcow2["container"]["size"], len);
    // The clusters of this one are encrypted one by one: the container is the header that it holds.
    let own = inspect(read_stored("qcow2-luks.img.gz"), None);
    assert_eq!((&own["data"]["offset"], &own["data"]["state"]), (&Value::from(0), &Value::from("complete")));
    assert!(own["layout"].as_array().unwrap().iter().all(|range| range["kind"] != "segment"));
}

#[test]
fn a_report_knows_a_detached_header_from_the_image() {
    let Golden { image, header, .. } = Golden::read("l1-detached");
    let (len, header_len) = (image.len(), header.as_ref().unwrap().len());
    let report = inspect(image, header.clone());
    assert_eq!((&report["image"]["size"], &report["header"]["size"]), (&len.into(), &header_len.into()));
    assert_eq!(report["layout"].as_array().unwrap().last().unwrap()["file"], "image");
    // Without its data it is a header, and says so.
    let alone = inspect(header.unwrap(), None);
    assert_eq!((&alone["data"]["state"], &alone["header"]), (&Value::from("detached-header"), &Value::Null));
}

#[test]
fn a_path_is_enough_for_a_report() {
    let path = crate::support::testdata("openstack-volume.img");
    let image = Image::open_path(&path, &OpenOptions::default()).unwrap();
    let report = image.report(&path, None);
    let report = parsed(&json::compact(&report).unwrap(), "inspect.schema.json");
    assert_eq!(report["image"]["path"], path.to_str().unwrap());
    // The members that a reader of the JSON wants are in the report itself, too.
    assert_eq!(report["uuid"], image.metadata().uuid.as_str());
}

#[test]
fn reports_of_scans_follow_their_schema() {
    let whole = in_mbr(&Golden::read("l2-argon2id").image);
    let mut damaged = whole.clone();
    damaged[usize::try_from(PARTITION).unwrap()..][..4096].fill(0);
    for (disk, wanted) in [(whole, "used"), (damaged, "unusable"), (vec![0; 1 << 20], "")] {
        let scan = unluks::scan::run(&disk, Default::default(), &Default::default()).unwrap();
        // The schema names every format.
        for format in Format::ALL {
            let scanned = Disk {
                path: Path::new("disk"),
                disk: &disk,
                format,
                sector_size: None,
                ways: &Ways::default(),
                snapshots: &[],
            };
            let report = parsed(&json::pretty(&Report::new(&scan, scanned)).unwrap(), "scan.schema.json");
            assert_eq!(report["image"]["format"], format.name());
            let container = &report["containers"][0];
            if wanted.is_empty() {
                assert_eq!(container, &Value::Null);
                continue;
            }
            assert_eq!((&container["offset"], &container["partition"]), (&PARTITION.into(), &1.into()));
            assert_eq!((&container["copies"][0]["state"], &container["opens"]), (&wanted.into(), &true.into()));
            assert_eq!(container["command"], Value::Null, "the command is the program's");
        }
    }
}
