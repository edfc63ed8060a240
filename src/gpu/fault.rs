//! Where the platform's errors go: every command runs in error scopes of its own thread, and what falls outside
//! of them is kept and returned by the next call.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

use super::locked;
use crate::error::{Error, Result};

/// What went wrong on a device outside of any call.
#[derive(Debug, Default)]
pub(super) struct Faults {
    lost: Mutex<Option<String>>,
    stray: Mutex<Option<Error>>,
}

impl Faults {
    /// From the device-lost callback. The first reason counts: what follows is its consequence.
    pub(super) fn lose(&self, reason: &str) {
        locked(&self.lost).get_or_insert_with(|| reason.trim().to_owned());
    }

    /// From the uncaptured-error callback.
    pub(super) fn stray(&self, error: wgpu::Error) {
        locked(&self.stray).get_or_insert_with(|| converted("an earlier command", error));
    }

    /// Whether the device is gone.
    pub(super) fn is_lost(&self) -> bool {
        locked(&self.lost).is_some()
    }

    /// The loss of the device, which is final, or an error that no call has returned yet.
    pub(super) fn check(&self) -> Result<()> {
        if let Some(reason) = locked(&self.lost).as_deref() {
            return Err(lost(reason));
        }
        match locked(&self.stray).take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

/// Runs `commands` and returns what they gave, or the first error they raised, as one of `place`.
///
/// Scopes are per thread, so two threads that use one device do not see each other's errors. They cannot be held
/// over an `await`, hence the closure.
pub(super) fn scoped<T>(
    device: &wgpu::Device,
    faults: &Faults,
    place: &str,
    commands: impl FnOnce() -> T,
) -> Result<T> {
    faults.check()?;
    let memory = device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
    let internal = device.push_error_scope(wgpu::ErrorFilter::Internal);
    let validation = device.push_error_scope(wgpu::ErrorFilter::Validation);
    let value = caught(place, commands);
    // Innermost first. On native these futures are ready at once.
    let errors = [
        pollster::block_on(validation.pop()),
        pollster::block_on(internal.pop()),
        pollster::block_on(memory.pop()),
    ];
    // A validation error may be the mere consequence of memory that was not there, so that one comes first.
    match errors.into_iter().flatten().min_by_key(|error| match error {
        wgpu::Error::OutOfMemory { .. } => 0,
        wgpu::Error::Internal { .. } => 1,
        wgpu::Error::Validation { .. } => 2,
    }) {
        Some(error) => {
            // A device that was lost says so with the next poll; what commands say of it is the consequence.
            caught(place, || drop(device.poll(wgpu::PollType::Poll)))?;
            if faults.is_lost() {
                faults.check()?;
            }
            Err(converted(place, error))
        }
        None => {
            let value = value?;
            faults.check()?;
            Ok(value)
        }
    }
}

/// Runs `commands`; a panic inside the platform (a shader writer's, or its reaction to a lost device) becomes an
/// error.
pub(super) fn caught<T>(place: &str, commands: impl FnOnce() -> T) -> Result<T> {
    catch_unwind(AssertUnwindSafe(commands)).map_err(|panic| Error::Device {
        place: place.to_owned(),
        message: format!("the driver layer panicked: {}", panic_text(panic.as_ref())),
    })
}

/// The device is gone.
pub(super) fn lost(reason: &str) -> Error {
    Error::Device { place: "device".into(), message: format!("device lost: {reason}") }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    if let Some(text) = panic.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text.clone()
    } else {
        "no message".to_owned()
    }
}

fn converted(place: &str, error: wgpu::Error) -> Error {
    match error {
        wgpu::Error::OutOfMemory { .. } => Error::OutOfMemory(place.to_owned()),
        wgpu::Error::Validation { ref source, .. } | wgpu::Error::Internal { ref source, .. } => {
            Error::Device { place: place.to_owned(), message: chain(source.as_ref()) }
        }
    }
}

/// An error and its causes on one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string().trim().to_owned();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(next.trim()) {
            text.push_str(": ");
            text.push_str(next.trim());
        }
        cause = error.source();
    }
    text
}
