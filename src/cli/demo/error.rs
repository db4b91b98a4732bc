//! The errors of the demo.

use std::io;

use crate::lab::LabError;
use crate::lab::boxes::BoxError;
use crate::lab::interrupt::Interrupted;
use crate::lab::load::LoadError;

/// The reason why the demo could not run.
#[derive(Debug, thiserror::Error)]
pub(super) enum DemoError {
    /// The namespaces could not be built.
    #[error(transparent)]
    Lab(LabError),
    /// An instance did not start or answer.
    #[error(transparent)]
    Box(BoxError),
    /// A download failed.
    #[error(transparent)]
    Load(LoadError),
    /// The report could not be printed.
    #[error("cannot print the report")]
    Output(#[source] io::Error),
    /// A signal ended the demo.
    #[error(transparent)]
    Interrupted(Interrupted),
}

impl From<LabError> for DemoError {
    fn from(error: LabError) -> DemoError {
        DemoError::Lab(error)
    }
}

impl From<Interrupted> for DemoError {
    fn from(error: Interrupted) -> DemoError {
        DemoError::Interrupted(error)
    }
}

// A signal stays a signal, whichever layer noticed the signal.
impl From<BoxError> for DemoError {
    fn from(error: BoxError) -> DemoError {
        if let BoxError::Interrupted(signal) = error {
            signal.into()
        } else {
            DemoError::Box(error)
        }
    }
}

impl From<LoadError> for DemoError {
    fn from(error: LoadError) -> DemoError {
        if let LoadError::Interrupted(signal) = error {
            signal.into()
        } else {
            DemoError::Load(error)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signal_from_every_layer_is_an_interruption() {
        let signal = Interrupted { number: 15 };
        for error in
            [DemoError::from(BoxError::from(signal)), LoadError::from(signal).into(), signal.into()]
        {
            assert!(matches!(error, DemoError::Interrupted(found) if found == signal), "{error}");
        }
    }
}
