//! Bytes of requests and answers in flight, bounded together: what has arrived counts, not what is announced.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes};
use futures_util::StreamExt;
use hyper::body::{Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::problem::Problem;

/// Bytes in flight together, unless one request or one answer alone may be larger.
const IN_FLIGHT_BYTES: usize = 64 << 20;

/// They are counted in these units, so that the largest setting fits a semaphore.
const UNIT: usize = 1 << 10;

/// An answer is written in pieces of so many bytes: what is left of it counts until it is read.
const PIECE_BYTES: usize = 64 << 10;

/// Who has not read an answer by then is cut off, however little is left.
const READ_LIMIT: Duration = Duration::from_secs(60);

/// What may be in flight.
#[derive(Clone)]
pub(super) struct Budget {
    units: Arc<Semaphore>,
    bytes: usize,
}

impl Budget {
    /// Room for at least one request or answer of `largest` bytes.
    pub fn new(largest: usize) -> Budget {
        let bytes = IN_FLIGHT_BYTES.max(largest);
        Budget { units: Arc::new(Semaphore::new(bytes.div_ceil(UNIT).min(Semaphore::MAX_PERMITS))), bytes }
    }

    /// Holds nothing yet.
    pub fn hold(&self) -> Held {
        Held { budget: self.clone(), permit: None }
    }
}

/// A part of a [`Budget`], given back when it is dropped.
pub(super) struct Held {
    budget: Budget,
    permit: Option<OwnedSemaphorePermit>,
}

impl Held {
    /// Holds as much as `bytes` take, if there is room.
    pub fn grow(&mut self, bytes: usize) -> Result<(), Problem> {
        let held = self.permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        // Settings allow a gigabyte: in units it fits.
        let more = u32::try_from(bytes.div_ceil(UNIT).saturating_sub(held)).unwrap_or(u32::MAX);
        if more == 0 {
            return Ok(());
        }
        let Ok(permit) = self.budget.units.clone().try_acquire_many_owned(more) else {
            let full = format!("requests and answers of {} bytes together are in flight already", self.budget.bytes);
            return Err(Problem::overloaded(full));
        };
        match &mut self.permit {
            Some(held) => held.merge(permit),
            none => *none = Some(permit),
        }
        Ok(())
    }
}

/// Reads a body of at most `limit` bytes; every piece is counted as it comes.
pub(super) async fn read(body: Body, limit: usize, held: &mut Held) -> Result<Bytes, Problem> {
    let mut stream: BodyDataStream = body.into_data_stream();
    let mut whole = Bytes::new();
    let mut gathered = Vec::new();
    while let Some(piece) = stream.next().await {
        let piece = piece.map_err(|error| Problem::unreadable_body(error.to_string()))?;
        let bytes = whole.len() + gathered.len() + piece.len();
        if bytes > limit {
            return Err(Problem::too_large(limit));
        }
        held.grow(bytes)?;
        if bytes == piece.len() {
            // Most bodies come in one piece: it is not copied.
            whole = piece;
            continue;
        }
        if gathered.is_empty() {
            gathered.extend_from_slice(&std::mem::take(&mut whole));
        }
        gathered.extend_from_slice(&piece);
    }
    Ok(if gathered.is_empty() { whole } else { gathered.into() })
}

/// An answer that counts until it is written, piece by piece and within [`READ_LIMIT`].
pub(super) struct Answer {
    left: Bytes,
    deadline: Instant,
    _held: Held,
}

impl Answer {
    /// `held`: its bytes.
    pub fn new(bytes: Vec<u8>, held: Held) -> Answer {
        Answer { left: bytes.into(), deadline: Instant::now() + READ_LIMIT, _held: held }
    }
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        if self.left.is_empty() {
            return Poll::Ready(None);
        }
        if Instant::now() > self.deadline {
            return Poll::Ready(Some(Err(std::io::ErrorKind::TimedOut.into())));
        }
        let bytes = self.left.len().min(PIECE_BYTES);
        Poll::Ready(Some(Ok(Frame::data(self.left.split_to(bytes)))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_has_arrived_counts_and_comes_back() {
        let budget = Budget::new(1 << 20);
        let held: Vec<Held> = (0..64)
            .map(|_| {
                let mut held = budget.hold();
                held.grow(1 << 20).expect("room");
                held.grow(1 << 20).expect("held already");
                held
            })
            .collect();
        let full = budget.hold().grow(1).expect_err("full");
        assert_eq!(full.status(), axum::http::StatusCode::SERVICE_UNAVAILABLE);
        drop(held);
        let mut held = budget.hold();
        let body = Body::from(vec![b' '; 1000]);
        assert_eq!(read(body, 1000, &mut held).await.expect("within the limit").len(), 1000);
        let large = read(Body::from(vec![b' '; 1001]), 1000, &mut held).await.expect_err("too large");
        assert_eq!(large.status(), axum::http::StatusCode::PAYLOAD_TOO_LARGE);
    }

    #[tokio::test]
    async fn pieces_of_a_body_are_put_together() {
        let pieces = ["ab", "", "c", "def"].map(|piece| Ok::<_, std::io::Error>(Bytes::from(piece)));
        let body = Body::from_stream(futures_util::stream::iter(pieces));
        let budget = Budget::new(10);
        assert_eq!(read(body, 6, &mut budget.hold()).await.expect("read"), "abcdef");
    }
}
