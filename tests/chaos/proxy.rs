//! A TCP proxy before one broker: what lies between it and the workers can be cut, slowed down or made narrow.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What the network does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// Everything passes.
    Whole,
    /// Nothing passes, connections stay open, and new ones are not answered.
    Cut,
    /// Everything arrives so much later, milliseconds.
    Delay(u64),
    /// So many bytes a second pass, in each direction of each connection.
    Narrow(u64),
}

struct State {
    network: Mutex<Network>,
    connections: Mutex<Vec<TcpStream>>,
    passed: AtomicU64,
}

/// A proxy, for as long as the process lives.
#[derive(Clone)]
pub struct Proxy {
    state: Arc<State>,
    pub port: u16,
}

impl Proxy {
    pub fn start(target: u16) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State {
            network: Mutex::new(Network::Whole),
            connections: Mutex::default(),
            passed: AtomicU64::new(0),
        });
        let proxy = Proxy { state: state.clone(), port };
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let state = state.clone();
                std::thread::spawn(move || connect(&state, client, target));
            }
        });
        proxy
    }

    /// Changes the network. One that is whole again has no connections of before: they are reset.
    pub fn set(&self, network: Network) {
        let before = std::mem::replace(&mut *self.state.network.lock().unwrap(), network);
        if before == Network::Cut {
            for connection in self.state.connections.lock().unwrap().drain(..) {
                let _ = connection.shutdown(Shutdown::Both);
            }
        }
    }

    /// Bytes that passed so far.
    pub fn passed(&self) -> u64 {
        self.state.passed.load(Ordering::Relaxed)
    }
}

fn connect(state: &Arc<State>, client: TcpStream, target: u16) {
    while *state.network.lock().unwrap() == Network::Cut {
        std::thread::sleep(Duration::from_millis(20));
    }
    let Ok(broker) = TcpStream::connect(("127.0.0.1", target)) else { return };
    let _ = (client.set_nodelay(true), broker.set_nodelay(true));
    let (Ok(client_copy), Ok(broker_copy)) = (client.try_clone(), broker.try_clone()) else { return };
    state.connections.lock().unwrap().extend([client.try_clone(), broker.try_clone()].into_iter().flatten());
    let other = state.clone();
    std::thread::spawn(move || pass(&other, client_copy, broker_copy));
    pass(state, broker, client);
}

fn pass(state: &State, mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read) = from.read(&mut buffer) {
        if read == 0 {
            break;
        }
        let mut rest = &buffer[..read];
        let came = Instant::now();
        while !rest.is_empty() {
            let network = *state.network.lock().unwrap();
            let take = match network {
                Network::Whole => rest.len(),
                Network::Cut => {
                    std::thread::sleep(Duration::from_millis(20));
                    continue;
                }
                Network::Delay(milliseconds) => {
                    std::thread::sleep(Duration::from_millis(milliseconds).saturating_sub(came.elapsed()));
                    rest.len()
                }
                Network::Narrow(rate) => {
                    std::thread::sleep(Duration::from_millis(20));
                    rest.len().min((rate / 50).max(1) as usize)
                }
            };
            if to.write_all(&rest[..take]).is_err() {
                let _ = from.shutdown(Shutdown::Both);
                return;
            }
            state.passed.fetch_add(take as u64, Ordering::Relaxed);
            rest = &rest[take..];
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}
