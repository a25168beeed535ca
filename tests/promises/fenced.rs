//! A cluster that names no broker for a while is not the end of any client.
//!
//! Where the controller pauses for longer than `broker.session.timeout.ms`, every broker is fenced, and the answers to Metadata
//! name topics and no brokers. A proxy before a real broker answers a worker's clients so.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use super::archive::{archive, catch_up};
use super::support::broker::{Broker, free_port};
use super::support::lake::count;
use super::support::process::Running;
use super::support::topics::{Topics, distinct, faults};
use super::support::wait_for;

const LIMIT: Duration = Duration::from_secs(60);

/// The name of the clients that are told of no broker.
const CLIENT: &str = "told-of-no-broker";

/// Metadata, as Kafka numbers its requests.
const METADATA: [u8; 2] = [0, 3];

#[derive(Default)]
struct Fence {
    is_up: AtomicBool,
    /// Answers that named no broker.
    changed: AtomicUsize,
}

fn frame(from: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let mut frame = vec![0; u32::from_be_bytes(length) as usize];
    from.read_exact(&mut frame)?;
    Ok(frame)
}

fn send(to: &mut TcpStream, frame: &[u8]) -> std::io::Result<()> {
    to.write_all(&[&(frame.len() as u32).to_be_bytes()[..], frame].concat())
}

/// The answer to Metadata 9 or later without its brokers. All numbers of these tests fit into one byte.
fn without_brokers(answer: &[u8]) -> Vec<u8> {
    // Correlation, tagged fields, throttle time.
    let count = 4 + 1 + 4;
    let mut end = count + 1;
    for _ in 1..answer[count] {
        end += 4; // id
        end += usize::from(answer[end]); // host
        end += 4; // port
        end += usize::from(answer[end]).max(1); // rack
        end += 1; // tagged fields
    }
    [&answer[..count], &[1], &answer[end..]].concat()
}

/// Passes everything between one client and the broker, but for brokers while the fence is up.
fn connect(fence: &Arc<Fence>, mut client: TcpStream, port: u16) {
    let Ok(mut broker) = TcpStream::connect(("127.0.0.1", port)) else { return };
    let (mut from, mut to) = (client.try_clone().unwrap(), broker.try_clone().unwrap());
    // Correlation ids of requests for metadata.
    let (asked, asks) = std::sync::mpsc::channel();
    std::thread::spawn(move || -> std::io::Result<()> {
        loop {
            let request = frame(&mut from)?;
            // Key, version, correlation, name.
            if request[..2] == METADATA && request[3] >= 9 && request[10..].starts_with(CLIENT.as_bytes()) {
                let _ = asked.send(request[4..8].to_vec());
            }
            send(&mut to, &request)?;
        }
    });
    let fence = fence.clone();
    std::thread::spawn(move || -> std::io::Result<()> {
        let mut asked = Vec::new();
        loop {
            let mut answer = frame(&mut broker)?;
            asked.extend(asks.try_iter());
            if let Some(index) = asked.iter().position(|correlation| answer[..4] == correlation[..]) {
                asked.remove(index);
                if fence.is_up.load(Ordering::SeqCst) {
                    answer = without_brokers(&answer);
                    fence.changed.fetch_add(1, Ordering::SeqCst);
                }
            }
            send(&mut client, &answer)?;
        }
    });
}

#[test]
fn clients_that_are_told_of_no_broker_at_all_find_them_again() {
    for guarantee in ["exactly-once", "at-least-once"] {
        const ROWS: usize = 10_000;
        let (proxied, listener) = (free_port(), TcpListener::bind("127.0.0.1:0").unwrap());
        let brokers = listener.local_addr().unwrap().to_string();
        // Behind the proxy the broker is known by the proxy's address.
        let broker = Broker::start_with(&format!(
            "listeners=LISTENERS,PROXIED://127.0.0.1:{proxied}\nadvertised.listeners=ADVERTISED,PROXIED://{brokers}\n\
             listener.security.protocol.map=CLIENTS:PLAINTEXT,CONTROLLER:PLAINTEXT,PROXIED:PLAINTEXT\n"
        ));
        let fence = Arc::<Fence>::default();
        let shared = fence.clone();
        std::thread::spawn(move || listener.incoming().flatten().for_each(|client| connect(&shared, client, proxied)));
        let mut topics = Topics::create(&broker, 2);
        let client = format!("client.id={CLIENT}");
        let refresh = "topic.metadata.refresh.interval.ms=300";
        let arguments = ["--brokers", &brokers, "--guarantee", guarantee, "-X", &client, "-X", refresh];
        let mut worker = topics.start_worker(&arguments);
        let folder = tempfile::tempdir().unwrap();
        topics.group += "-archive";
        let mut archive = archive(&topics, folder.path());
        archive.args(["--brokers", &brokers, "-X", &client, "-X", refresh, "--file-rows", "500"]);
        let archive = Running::start(archive);
        let producer = topics.start_producer(1_000, ROWS, 21);
        let mut subscriber = topics.subscribe(&topics.output);
        for episode in 0..3 {
            let seen = subscriber.seen.len();
            subscriber.wait_until("verdicts again", LIMIT, |all| all.len() > seen + 500);
            let changed = fence.changed.load(Ordering::SeqCst);
            fence.is_up.store(true, Ordering::SeqCst);
            wait_for("an answer without brokers", LIMIT, || {
                (fence.changed.load(Ordering::SeqCst) > changed + episode).then_some(())
            });
            fence.is_up.store(false, Ordering::SeqCst);
        }
        assert_eq!(producer.finish(LIMIT).status.code(), Some(0));
        subscriber.wait_until("all verdicts", LIMIT, |seen| seen.len() >= ROWS && distinct(seen) == ROWS);
        subscriber.settle(Duration::from_millis(500));
        if guarantee == "exactly-once" {
            assert_eq!(faults(&subscriber.seen, ROWS), Vec::<String>::new());
        }
        wait_for("the archive goes on", LIMIT, || (count(folder.path()) >= ROWS / 2).then_some(()));
        archive.terminate();
        assert_eq!(archive.finish(LIMIT).status.code(), Some(0));
        catch_up(&topics, folder.path(), &[]);
        assert_eq!(count(folder.path()), subscriber.seen.len());
        worker.wait_until_ready();
        worker.terminate();
        assert_eq!(worker.finish(LIMIT).status.code(), Some(0));
    }
}
