//! What a request's body stands for, looked at while it passes as it is: what stands for a credential, through gzip, deflate and
//! a form's percent-encoding, and parameters that are another method to the server. It breaks off at the piece by which that is known, so
//! that the server never has the whole of it. Used by `http::body`.

use std::sync::Arc;

use hyper::header::HeaderMap;

use super::form::Names;
use crate::credentials::window::{Patterns, Window};
use crate::inspect;
use crate::limits;
use crate::view::{Inflate, Percent, View};

pub struct Meaning {
    inflate: Option<Box<Inflate>>,
    percent: Option<Percent>,
    placeholders: Option<Window>,
    names: Option<Names>,
    /// The body as it is, where it is compressed: many servers look no further.
    raw: Option<Names>,
}

/// Why a body does not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misplaced {
    Placeholder,
    /// Or nobody can say that there is none.
    OtherMethod,
}

impl Meaning {
    /// `None`: the body says nothing but what it is. `methods`: whether the method was asked about.
    ///
    /// # Errors
    /// A body that may say another method, in an encoding that is not read or in characters that are not known.
    pub fn of(
        headers: &HeaderMap,
        placeholders: Option<&Arc<Patterns>>,
        methods: bool,
    ) -> Result<Option<Self>, Misplaced> {
        let names = match methods {
            true => Names::of(headers).map_err(|_| Misplaced::OtherMethod)?,
            false => None,
        };
        let inflate = match View::of(headers, None) {
            Ok(View::Inflate(inflate)) => Some(inflate),
            Ok(_) => None,
            // The inspectors tell of what cannot be read; what stands for a credential is worth nothing where it comes to.
            Err(_) if names.is_some() => return Err(Misplaced::OtherMethod),
            Err(_) => return Ok(None),
        };
        let form = inspect::media(headers).is_some_and(|media| media == inspect::FORM);
        let encoded = placeholders.filter(|_| form || inflate.is_some());
        if names.is_none() && encoded.is_none() {
            return Ok(None);
        }
        Ok(Some(Self {
            raw: names.clone().filter(|_| inflate.is_some()),
            inflate,
            percent: form.then(Percent::default),
            placeholders: encoded.map(|patterns| Window::new(Arc::clone(patterns))),
            names,
        }))
    }

    /// Looks at the next piece.
    ///
    /// # Errors
    /// What may not pass.
    pub fn push(&mut self, piece: &[u8]) -> Result<(), Misplaced> {
        if self.inflate.is_none() {
            return self.text(piece);
        }
        if self.raw.as_mut().is_some_and(|raw| raw.push(piece)) {
            return Err(Misplaced::OtherMethod);
        }
        for little in piece.chunks(limits::INFLATE) {
            match self.inflate.as_mut().map(|inflate| inflate.push(little)) {
                Some(Ok(text)) => self.text(&text)?,
                // From here on nobody can say.
                Some(Err(_)) if self.names.is_some() => return Err(Misplaced::OtherMethod),
                Some(Err(_)) | None => {
                    self.placeholders = None;
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn text(&mut self, text: &[u8]) -> Result<(), Misplaced> {
        if let Some(names) = &mut self.names
            && names.push(text)
        {
            return Err(Misplaced::OtherMethod);
        }
        let Some(placeholders) = &mut self.placeholders else {
            return Ok(());
        };
        let (_, found) = match &mut self.percent {
            Some(percent) => placeholders.push(&percent.push(text)),
            None => placeholders.push(text),
        };
        if found {
            return Err(Misplaced::Placeholder);
        }
        Ok(())
    }
}
