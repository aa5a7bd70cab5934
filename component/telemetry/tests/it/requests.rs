//! The access log on disk: found again, followed, bounded, and not in the way when it cannot be written.

use meter::Meter;
use std::time::Duration;
use telemetry::requests::{Requests, Status, Wanted};
use wire::api::{RequestRecord, Split};

/// A log that has nothing to say within this is stuck: the test fails instead of hanging.
const STUCK: Duration = Duration::from_secs(20);

struct Bed {
    folder: tempfile::TempDir,
    meter: Meter,
    requests: Requests,
}

impl Bed {
    fn new(half_bytes_max: u64) -> Bed {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let meter = Meter::new();
        let requests = Requests::bounded(folder.path(), &meter, half_bytes_max);
        Bed { folder, meter, requests }
    }

    async fn paths(&self, wanted: Wanted) -> Vec<String> {
        let found = self.requests.query(wanted).await.expect("can be read");
        found.into_iter().map(|record| record.path).collect()
    }
}

fn request(time_ms: u64, path: &str, change: impl FnOnce(&mut RequestRecord)) -> RequestRecord {
    let mut record = RequestRecord {
        time_ms,
        trace: format!("{time_ms:032x}"),
        client: "192.0.2.1".to_owned(),
        method: "GET".to_owned(),
        path: path.to_owned(),
        status: 200,
        service: "shop/web".to_owned(),
        route: "shop.test/".to_owned(),
        instance: "shop.web.1".to_owned(),
        ..RequestRecord::default()
    };
    change(&mut record);
    record
}

#[tokio::test]
async fn requests_are_found_by_what_they_were() {
    let bed = Bed::new(1 << 20);
    let slow = |us| Split { total_us: us, ..Split::default() };
    bed.requests.append(&[
        request(1_000, "/a", |_| {}),
        request(2_000, "/b", |record| record.status = 404),
        request(3_000, "/c\"}\n\\", |record| (record.status, record.service) = (503, "shop/a.b".to_owned())),
        request(4_000, "/d", |record| (record.status, record.split) = (0, slow(1_999_999))),
        request(5_000, "/e", |record| record.split = slow(2_000_000)),
        request(6_000, "/f", |record| record.client = "2001:db8::1".to_owned()),
    ]);
    let text = |text: &str| Some(text.to_owned());
    let all = ["/a", "/b", "/c\"}\n\\", "/d", "/e", "/f"];
    assert_eq!(bed.paths(Wanted::default()).await, all);
    assert_eq!(bed.paths(Wanted { tail: Some(2), ..Wanted::default() }).await, ["/e", "/f"]);
    let status = |status| Wanted { status: Some(status), ..Wanted::default() };
    assert_eq!(bed.paths(status(Status::Is(404))).await, ["/b"]);
    assert_eq!(bed.paths(status(Status::Class(5))).await, ["/c\"}\n\\"]);
    assert_eq!(bed.paths(status(Status::Gone)).await, ["/d"]);
    assert_eq!(bed.paths(Wanted { slow_us: Some(2_000_000), ..Wanted::default() }).await, ["/e"]);
    assert_eq!(bed.paths(Wanted { service: text("shop/a.b"), ..Wanted::default() }).await, ["/c\"}\n\\"]);
    assert_eq!(bed.paths(Wanted { service: text("shop/axb"), ..Wanted::default() }).await, [""; 0]);
    assert_eq!(bed.paths(Wanted { client: text("2001:db8::1"), ..Wanted::default() }).await, ["/f"]);
    assert_eq!(bed.paths(Wanted { trace: Some(format!("{:032x}", 2_000)), ..Wanted::default() }).await, ["/b"]);
    assert_eq!(bed.paths(Wanted { instance: text("shop.web.2"), ..Wanted::default() }).await, [""; 0]);
    let between = Wanted { since_ms: Some(2_000), until_ms: Some(3_000), ..Wanted::default() };
    assert_eq!(bed.paths(between).await, ["/b", "/c\"}\n\\"]);
    let odd = Wanted { route: text("(.*"), client: text("\"/\\"), ..Wanted::default() };
    assert_eq!(bed.paths(odd).await, [""; 0], "what looks like a pattern is a text");
}

#[test]
fn statuses_are_read() {
    let check = |text: &str, expected: Result<Status, ()>| assert_eq!(text.parse(), expected, "{text}");
    check("404", Ok(Status::Is(404)));
    check("5xx", Ok(Status::Class(5)));
    check("gone", Ok(Status::Gone));
    for wrong in ["", "xx", "6xx", "0xx", "55xx", "99", "600", "+404", "4x"] {
        check(wrong, Err(()));
    }
}

#[tokio::test]
async fn what_is_kept_has_a_bound_and_followers_miss_nothing() {
    let bed = Bed::new(10_000);
    bed.requests.append(&[request(1, "/first", |_| {})]);
    let mut following = bed.requests.follow(Wanted::default()).expect("can be followed");
    let mut next =
        async || tokio::time::timeout(STUCK, following.next()).await.expect("it goes on").expect("a request");
    assert_eq!(next().await.path, "/first");
    for at in 0..200 {
        bed.requests.append(&[request(at, &format!("/{at}"), |_| {})]);
        assert_eq!(next().await.path, format!("/{at}"));
    }
    let kept = bed.paths(Wanted::default()).await;
    assert!(kept.len() < 100 && kept.last().is_some_and(|last| last == "/199"), "{kept:?}");
    let sizes = ["current", "previous"].map(|name| {
        std::fs::metadata(bed.folder.path().join("gateway/requests/node").join(name)).expect("is there").len()
    });
    assert!(sizes.iter().all(|size| *size <= 10_000), "{sizes:?}");
}

#[tokio::test]
async fn a_log_that_cannot_be_written_is_counted_and_goes_on_when_it_can() {
    let bed = Bed::new(1 << 20);
    bed.requests.append(&[request(1, "/a", |_| {})]);
    let folder = bed.folder.path().join("gateway/requests/node");
    // As after a power cut: the last line is not whole.
    let torn = Requests::new(bed.folder.path(), &bed.meter);
    std::fs::write(folder.join("current"), "1 o {\"path\":\"/torn").expect("can be written");
    torn.append(&[request(2, "/b", |_| {})]);
    assert_eq!(bed.paths(Wanted::default()).await, ["/b"]);

    std::fs::remove_dir_all(bed.folder.path().join("gateway")).expect("can be removed");
    std::fs::write(bed.folder.path().join("gateway"), "in the way").expect("can be written");
    let again = Requests::new(bed.folder.path(), &bed.meter);
    again.append(&[request(3, "/lost", |_| {})]);
    assert!(bed.meter.encode().contains("bramble_telemetry_requests_failed_total 1\n"));
    std::fs::remove_file(bed.folder.path().join("gateway")).expect("can be removed");
    again.append(&[request(4, "/c", |_| {})]);
    assert_eq!(bed.paths(Wanted::default()).await, ["/c"]);
}
