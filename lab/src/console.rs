//! A cluster to play with: machines in a network of their own, verbs from the keyboard, and a way in for the browser.

use crate::machines::{HELP, Machines, Verb};
use crate::network::Place;
use std::io::{BufRead, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

/// Lines that wait while a verb is carried out.
const LINES_MAX: usize = 64;
/// Of browsers, for each machine.
const CONNECTIONS_MAX: usize = 128;
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// How a machine is reached.
#[derive(Debug, Clone)]
struct Way {
    api: SocketAddr,
    http: SocketAddr,
    token: String,
    /// From where, if not from here.
    through: Option<Place>,
}

/// What came of a verb, and how every machine is reached after it.
type Answer = (Result<String, String>, Vec<Way>);

/// Starts so many machines and does what is said, until the input ends or `quit` is said.
pub fn run(count: usize) -> Result<(), String> {
    let (ask, asked) = sync_channel::<Verb>(1);
    let (answer, answers) = sync_channel::<Answer>(1);
    // It goes into their network; this thread stays where the browser is.
    let machines = std::thread::spawn(move || own(count, &asked, &answer));
    let lines = lines();
    let mut shown = 0;
    let mut first = true;
    while let Ok((said, ways)) = answers.recv() {
        match said {
            Ok(text) if text.is_empty() => {}
            Ok(text) => println!("{text}"),
            Err(text) => println!("error: {text}"),
        }
        for (number, way) in ways.iter().enumerate().skip(shown) {
            show(number + 1, way)?;
        }
        shown = shown.max(ways.len());
        if std::mem::take(&mut first) {
            println!("{HELP}");
        }
        let Some(verb) = next(&lines) else { break };
        if ask.send(verb).is_err() {
            break;
        }
    }
    drop(ask);
    println!("taking it all away");
    machines.join().map_err(|_| "the machines ended with a panic".to_owned())?
}

/// The thread that the machines belong to.
fn own(count: usize, asked: &Receiver<Verb>, answer: &SyncSender<Answer>) -> Result<(), String> {
    let mut machines = Machines::start(count)?;
    let mut said = Ok(String::new());
    loop {
        let ways = (1..=machines.count()).map(|number| {
            let node = machines.node(number);
            let token = std::fs::read_to_string(node.data().join("token")).unwrap_or_default();
            let token = token.trim().to_owned();
            Way { api: node.api, http: node.http, token, through: machines.place() }
        });
        if answer.send((said, ways.collect())).is_err() {
            return Ok(());
        }
        let Ok(verb) = asked.recv() else { return Ok(()) };
        said = machines.act(verb);
    }
}

/// The next verb; `None` at the end.
fn next(lines: &Receiver<String>) -> Option<Verb> {
    loop {
        print!("lab> ");
        let _ = std::io::stdout().flush();
        let line = lines.recv().ok()?;
        if line.trim().is_empty() {
            continue;
        }
        match Verb::read(&line) {
            Ok(Verb::Quit) => return None,
            Ok(verb) => return Some(verb),
            Err(said) => println!("error: {said}"),
        }
    }
}

/// What is typed. Ctrl-C is `quit`: whatever was made is taken away.
fn lines() -> Receiver<String> {
    let (tell, lines) = sync_channel(LINES_MAX);
    let interrupted = tell.clone();
    std::thread::spawn(move || {
        std::io::stdin().lock().lines().map_while(Result::ok).try_for_each(|line| tell.send(line))?;
        tell.send("quit".to_owned())
    });
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        if let Ok(runtime) = runtime
            && runtime.block_on(tokio::signal::ctrl_c()).is_ok()
        {
            let _ = interrupted.send("quit".to_owned());
        }
    });
    lines
}

fn show(number: usize, way: &Way) -> Result<(), String> {
    let (api, http) = match &way.through {
        Some(place) => (window(way.api, place)?, window(way.http, place)?),
        None => (way.api, way.http),
    };
    println!("machine {number}: dashboard http://{api}/#token={} · services http://{http}", way.token);
    Ok(())
}

/// Listens here for what is to be reached there.
fn window(to: SocketAddr, through: &Place) -> Result<SocketAddr, String> {
    let failed = |error| format!("listen for {to}: {error}");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let through = through.clone();
    // It ends with the program.
    std::thread::spawn(move || {
        let open = Arc::new(AtomicUsize::new(0));
        for stream in listener.incoming().map_while(Result::ok) {
            if open.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS_MAX {
                open.fetch_sub(1, Ordering::Relaxed);
                continue;
            }
            let (open, through) = (Arc::clone(&open), through.clone());
            std::thread::spawn(move || {
                // A machine that is not there ends the connection: that is what a browser has to see.
                let _ = carry(&stream, to, &through);
                open.fetch_sub(1, Ordering::Relaxed);
            });
        }
    });
    Ok(address)
}

fn carry(client: &TcpStream, to: SocketAddr, through: &Place) -> std::io::Result<()> {
    let machine = &through.inside(|| TcpStream::connect_timeout(&to, CONNECT_MAX))?;
    let one_way = |mut from: &TcpStream, mut to: &TcpStream| {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    };
    std::thread::scope(|scope| {
        scope.spawn(|| one_way(client, machine));
        one_way(machine, client);
    });
    Ok(())
}
