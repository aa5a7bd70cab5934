//! Which instance answers, who waits, who is asked twice and who is refused when there is too much to do.

use crate::bed::{Bed, Client, Instance, SERVICE, endpoints, route, table, text, until};
use gateway::{Endpoint, Limits, ListenerKind, Settings, Speaks, Table};
use http::Response;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;
use wire::spec::{Balance, Delivery, HashKey, Hedge, PriorityClass};

fn delivered(ids: &[&str], delivery: Delivery) -> Table {
    let mut table = table(ListenerKind::Routed, Speaks::Http, ids);
    table.routes[0].delivery = Some(Box::new(delivery));
    table
}

async fn named(delivery: Delivery) -> (Bed, [Instance; 3]) {
    let instances = [Instance::named("a").await, Instance::named("b").await, Instance::named("c").await];
    let bed = Bed::start(Limits::default(), delivered(&["a", "b", "c"], delivery)).await;
    for (id, instance) in ["a", "b", "c"].into_iter().zip(&instances) {
        bed.doors.set(id, instance.address);
    }
    (bed, instances)
}

async fn ask(client: &mut Client, headers: &str) -> (String, Option<String>) {
    let answer = client.ask(format!("GET / HTTP/1.1\r\nhost: shop.test\r\n{headers}\r\n")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    (answer.text(), answer.headers.get("set-cookie").cloned())
}

#[tokio::test]
async fn a_client_stays_with_its_instance_for_as_long_as_that_is_there() {
    let sticky = |name: &str| Delivery { balance: Some(Balance::Sticky(name.to_owned())), ..Delivery::default() };
    let (bed, _instances) = named(sticky("")).await;
    let mut client = bed.client().await;
    let (who, cookie) = ask(&mut client, "").await;
    let cookie = cookie.expect("a cookie");
    assert!(cookie.ends_with("; Path=/; HttpOnly; SameSite=Lax"), "{cookie}");
    let pair = cookie.split(';').next().unwrap().to_owned();
    for _ in 0..30 {
        let (again, cookie) = ask(&mut client, &format!("cookie: x=1; {pair}\r\n")).await;
        assert_eq!((again.as_str(), cookie), (who.as_str(), None));
    }
    let others: Vec<&str> = ["a", "b", "c"].into_iter().filter(|name| *name != who).collect();
    bed.gateway.apply(delivered(&others, sticky(""))).await;
    let (other, cookie) = ask(&mut client, &format!("cookie: {pair}\r\n")).await;
    assert_ne!(other, who);
    let moved = cookie.expect("another cookie");
    assert_ne!(moved.split(';').next().unwrap(), pair);
    let (again, _) = ask(&mut client, &format!("cookie: {}\r\n", moved.split(';').next().unwrap())).await;
    assert_eq!(again, other);
    // What nobody gave out is no instance.
    let (_, cookie) = ask(&mut client, "cookie: bramble_00000000=shop.web.1\r\n").await;
    assert!(cookie.is_some());
    bed.gateway.apply(delivered(&["a"], sticky("mine"))).await;
    let (_, cookie) = ask(&mut client, "").await;
    assert!(cookie.is_some_and(|cookie| cookie.starts_with("mine=")));
}

#[tokio::test]
async fn the_same_key_finds_the_same_instance() {
    let by_user = Balance::Hash(HashKey::Header("x-user".to_owned()));
    let (bed, _instances) = named(Delivery { balance: Some(by_user), ..Delivery::default() }).await;
    let mut client = bed.client().await;
    let mut all = BTreeSet::new();
    for user in 0..30 {
        let header = format!("x-user: user-{user}\r\n");
        let (who, cookie) = ask(&mut client, &header).await;
        assert_eq!(cookie, None);
        for _ in 0..3 {
            assert_eq!(ask(&mut client, &header).await.0, who, "{user}");
        }
        all.insert(who);
    }
    assert_eq!(all.len(), 3, "keys are spread");
}

/// An instance that answers one request for each permit, and tells how many it has.
async fn gated() -> (Instance, Arc<Semaphore>, Arc<AtomicUsize>) {
    let (gate, most) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let now = Arc::new(AtomicUsize::new(0));
    let (passed, seen) = (Arc::clone(&gate), Arc::clone(&most));
    let instance = Instance::http(move |_| {
        let (gate, most, now) = (Arc::clone(&passed), Arc::clone(&seen), Arc::clone(&now));
        async move {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            gate.acquire().await.unwrap().forget();
            now.fetch_sub(1, Ordering::SeqCst);
            Response::new(text("done"))
        }
    })
    .await;
    (instance, gate, most)
}

#[tokio::test]
async fn an_instance_has_no_more_than_it_may_and_the_others_wait() {
    let (instance, gate, most) = gated().await;
    let table = delivered(&["a"], Delivery { in_flight_max: Some(2), ..Delivery::default() });
    let bed = Bed::start(Limits { held_max: 3, ..Limits::default() }, table).await;
    bed.doors.set("a", instance.address);
    let mut clients = Vec::new();
    for _ in 0..5 {
        let mut client = bed.client().await;
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        clients.push(client);
    }
    let waiting = || bed.counted("bramble_gateway_waiting", "");
    until(|| bed.gateway.in_flight("a") == 2 && waiting() == 3.0).await;
    let refused = bed.client().await.get("/").await;
    assert_eq!((refused.status, refused.headers["retry-after"].as_str()), (503, "1"));
    assert!(refused.text().starts_with("B0608"), "{}", refused.text());
    gate.add_permits(5);
    for client in &mut clients {
        assert_eq!(client.answer().await.unwrap().status, 200);
    }
    assert_eq!((most.load(Ordering::SeqCst), waiting()), (2, 0.0));
}

#[tokio::test]
async fn who_waits_too_long_for_a_turn_is_told_when_to_come_again() {
    let (instance, gate, _) = gated().await;
    let table = delivered(&["a"], Delivery { in_flight_max: Some(1), ..Delivery::default() });
    let limits = Limits { hold_deadline: Duration::from_millis(20), ..Limits::default() };
    let bed = Bed::start(limits, table).await;
    bed.doors.set("a", instance.address);
    let mut client = bed.client().await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    until(|| bed.gateway.in_flight("a") == 1).await;
    let refused = bed.client().await.get("/").await;
    assert_eq!((refused.status, refused.headers["retry-after"].as_str()), (503, "1"));
    // The bound goes with the route that states it.
    bed.serve(&["a"]).await;
    gate.add_permits(2);
    assert_eq!(bed.client().await.get("/").await.status, 200);
    assert_eq!(client.answer().await.unwrap().status, 200);
}

#[tokio::test]
async fn instances_on_busy_machines_are_asked_less_and_far_ones_not_at_all() {
    let instances = [Instance::named("a").await, Instance::named("b").await];
    let mut table = table(ListenerKind::Routed, Speaks::Http, &[]);
    let endpoint = |id: &str, zone: &str| Endpoint {
        instance: id.to_owned(),
        machine: format!("machine-{id}"),
        zone: Some(zone.into()),
        ..Endpoint::default()
    };
    let serve = |zones: [&str; 2]| vec![endpoint("a", zones[0]), endpoint("b", zones[1])];
    table.services = BTreeMap::from([(SERVICE.to_owned(), serve(["home", "home"]))]);
    let bed = Bed::start_with(Settings { zone: Some("home".into()), ..Settings::default() }, table.clone()).await;
    for (id, instance) in ["a", "b"].into_iter().zip(&instances) {
        bed.doors.set(id, instance.address);
    }
    bed.gateway.note_loads(&BTreeMap::from([("machine-b".to_owned(), 0.9)]));
    let seen = bed.gateway.endpoints(SERVICE, 80);
    assert_eq!(seen.iter().map(|one| one.load).collect::<Vec<_>>(), [0.0, 0.9]);
    table.services = BTreeMap::from([(SERVICE.to_owned(), serve(["home", "far"]))]);
    bed.gateway.apply(table).await;
    let mut client = bed.client().await;
    for _ in 0..50 {
        assert_eq!(client.get("/").await.text(), "a");
    }
    let text = bed.meter.encode();
    assert!(text.contains("bramble_gateway_breaker{instance=\"b\",service=\"shop/web\"} 0\n"), "{text}");
}

#[tokio::test]
async fn a_second_instance_is_asked_when_the_first_lets_wait() {
    let slow = Instance::http(|_| std::future::pending::<Response<crate::bed::Body>>()).await;
    let quick = Instance::named("quick").await;
    let hedge = Delivery { hedge: Some(Hedge::AfterMs(1)), ..Delivery::default() };
    let bed = Bed::start(Limits::default(), delivered(&["quick", "slow"], hedge)).await;
    bed.doors.set("slow", slow.address);
    bed.doors.set("quick", quick.address);
    let hedges = || bed.counted("bramble_gateway_hedges_total", "");
    let mut client = bed.client().await;
    let mut asked = 0;
    while hedges() < 3.0 {
        assert_eq!(client.get("/").await.text(), "quick");
        asked += 1;
        assert!(asked < 5_000, "the slow one is asked now and then");
    }
    until(|| bed.gateway.in_flight("slow") == 0).await;
    // What may have an effect is sent once: it waits with the instance it was given to.
    while bed.gateway.in_flight("slow") == 0 {
        let mut client = bed.client().await;
        client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n").await;
        tokio::select! {
            answer = client.answer() => assert_eq!(answer.unwrap().text(), "quick"),
            () = until(|| bed.gateway.in_flight("slow") == 1) => {}
        }
    }
}

#[tokio::test]
async fn what_matters_least_is_refused_first() {
    let instance = Instance::named("a").await;
    let mut table = table(ListenerKind::Routed, Speaks::Http, &["a"]);
    let class = |name: &str, class: PriorityClass| {
        let mut route = route(&[name], "/", SERVICE);
        route.delivery = Some(Box::new(Delivery { priority_class: class, ..Delivery::default() }));
        route
    };
    table.routes =
        vec![class("low.test", PriorityClass::Low), class("high.test", PriorityClass::High), route(&[], "/", SERVICE)];
    table.services = BTreeMap::from([(SERVICE.to_owned(), endpoints(&["a"]))]);
    let bed = Bed::start(Limits::default(), table).await;
    bed.doors.set("a", instance.address);
    let mut client = bed.client().await;
    let mut refused = BTreeMap::new();
    for waiting in [0.0, 1.0] {
        bed.gateway.note_waiting(waiting);
        for host in ["low.test", "high.test", "other.test"] {
            for _ in 0..100 {
                let answer = client.ask(format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n")).await;
                if answer.status == 503 {
                    assert!(answer.text().starts_with("B0609") && answer.headers["retry-after"] == "1");
                    *refused.entry((host, waiting > 0.0)).or_insert(0) += 1;
                } else {
                    assert_eq!(answer.status, 200);
                }
            }
        }
    }
    let [((host, busy), count)] = refused.into_iter().collect::<Vec<_>>()[..] else { panic!("one class is refused") };
    assert!(host == "low.test" && busy && count > 60, "{host} {busy} {count}");
    bed.counts("bramble_gateway_shed_total", "class=\"low\"", f64::from(count)).await;
}
