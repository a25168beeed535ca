//! S3 as moto emulates it, from the project's Python environment, on a free loopback port.

use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use axum::body::Bytes;

use super::python_tool;

/// A store with one bucket, once it is up; stopped when dropped, or when the test process ends however it does.
pub struct S3 {
    /// Where clients find it, through a gate that is open when it is up.
    port: u16,
    /// Where moto itself listens.
    own_port: u16,
    runtime: tokio::runtime::Runtime,
    guard: Option<Child>,
}

/// moto asks for a signature and does not check it.
const AUTHORISATION: &str = "AWS4-HMAC-SHA256 Credential=key/20260131/us-east-1/s3/aws4_request";

/// The bucket's name.
pub const BUCKET: &str = "lake";

impl S3 {
    /// A store that does not run yet: nothing listens on its port.
    pub fn down() -> S3 {
        let [port, own_port] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        S3 { port, own_port, runtime, guard: None }
    }

    /// What a client needs to find and enter it.
    pub fn environment(&self) -> [(&'static str, String); 4] {
        [
            ("AWS_ENDPOINT_URL", self.address()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", "key".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "not-in-any-log".to_owned()),
        ]
    }

    fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Starts it, empty; returns when the bucket is there.
    pub fn up(&mut self) {
        let mut guard = Command::new("bash");
        guard.arg("-c").arg(r#""$@" </dev/null & server=$!; cat >/dev/null; kill -9 $server; wait $server"#);
        guard.arg("guard").arg(moto()).args(["-H", "127.0.0.1", "-p", &self.own_port.to_string()]);
        guard.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        self.guard = Some(guard.spawn().unwrap());
        let deadline = Instant::now() + Duration::from_secs(120);
        while self.ask(reqwest::Method::PUT, BUCKET).is_none() {
            assert!(Instant::now() < deadline, "moto does not answer");
            std::thread::sleep(Duration::from_millis(100));
        }
        // Clients come in when the bucket is there: one that is missing is no outage.
        let (gate, own_port) = (TcpListener::bind(("127.0.0.1", self.port)).unwrap(), self.own_port);
        std::thread::spawn(move || {
            for client in gate.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(("127.0.0.1", own_port)) else { return };
                let ends = [client.try_clone(), server.try_clone()].map(Result::unwrap);
                for (mut from, mut to) in std::iter::zip(ends, [server, client]) {
                    std::thread::spawn(move || {
                        let _ = std::io::copy(&mut from, &mut to);
                        let _ = to.shutdown(Shutdown::Write);
                    });
                }
            }
        });
    }

    /// Keys in the bucket, sorted.
    pub fn keys(&self) -> Vec<String> {
        let listing = self.ask(reqwest::Method::GET, &format!("{BUCKET}?list-type=2")).unwrap();
        let listing = String::from_utf8(listing.to_vec()).unwrap();
        assert!(!listing.contains("<IsTruncated>true"), "one page is enough for a test");
        let mut keys: Vec<String> =
            listing.split("<Key>").skip(1).map(|rest| rest.split('<').next().unwrap().to_owned()).collect();
        keys.sort();
        keys
    }

    /// What an object holds.
    pub fn object(&self, key: &str) -> Bytes {
        self.ask(reqwest::Method::GET, &format!("{BUCKET}/{key}")).unwrap()
    }

    fn ask(&self, method: reqwest::Method, path: &str) -> Option<Bytes> {
        self.runtime.block_on(async {
            let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30)).build().unwrap();
            let request = client.request(method, format!("http://127.0.0.1:{}/{path}", self.own_port));
            let request = request.header("Authorization", AUTHORISATION);
            request.send().await.ok()?.error_for_status().ok()?.bytes().await.ok()
        })
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        if let Some(mut guard) = self.guard.take() {
            drop(guard.stdin.take());
            let _ = guard.wait();
        }
    }
}

/// moto's server: beside the other tools of the Python environment, or where FRAUD_SCORER_TEST_MOTO says.
fn moto() -> PathBuf {
    std::env::var_os("FRAUD_SCORER_TEST_MOTO")
        .map_or_else(|| python_tool().with_file_name("moto_server"), PathBuf::from)
}
