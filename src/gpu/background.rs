//! Waiting for the device without blocking an executor: a short-lived thread waits and wakes a future.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use super::fault::caught;
use super::locked;
use crate::error::{Error, Result};

/// The result of a thread, once there is one.
pub(super) struct Waiting<T>(Arc<Mutex<State<T>>>);

struct State<T> {
    result: Option<Result<T>>,
    waker: Option<Waker>,
}

impl<T> Future for Waiting<T> {
    type Output = Result<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<T>> {
        let mut state = locked(&self.0);
        match state.result.take() {
            Some(result) => Poll::Ready(result),
            None => {
                state.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// Runs `work`, which blocks, on a thread of its own. Dropping the future lets it finish unheard.
pub(super) fn in_background<T: Send + 'static>(
    place: &'static str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<Waiting<T>> {
    let state = Arc::new(Mutex::new(State { result: None, waker: None }));
    let theirs = Arc::clone(&state);
    let waits = move || {
        // A future that is never woken would hang, so a panic is a result too.
        let result = caught(place, work).unwrap_or_else(Err);
        let mut state = locked(&theirs);
        state.result = Some(result);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    };
    match std::thread::Builder::new().name("tilewright-wait".into()).spawn(waits) {
        Ok(_) => Ok(Waiting(state)),
        Err(error) => Err(Error::Device {
            place: place.to_owned(),
            message: format!("no thread to wait for the device: {error}"),
        }),
    }
}
