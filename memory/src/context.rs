//! The context of a request: who asks, and what the session knows, carried along with the work.
//! In the process alone; each thread has its own, and nothing crosses threads by itself.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::Arc;

use crate::codec::Json;
use crate::error::{Error, Result};

thread_local! {
    /// Contexts that were entered and not left, the innermost last, each with its guard's number.
    static ENTERED: RefCell<Vec<(u64, Arc<RequestContext>)>> = const { RefCell::new(Vec::new()) };
    static GUARDS: Cell<u64> = const { Cell::new(0) };
}

/// What belongs to one request. It never changes: who sets a value gets a context of its own, and
/// everybody else keeps theirs.
#[derive(Debug, Clone, PartialEq)]
pub struct RequestContext {
    request_id: String,
    user_id: Option<String>,
    session_data: Arc<BTreeMap<String, Json>>,
}

/// Collects what a context begins with.
#[derive(Debug, Clone)]
#[must_use]
pub struct Builder {
    context: RequestContext,
}

impl Builder {
    /// Who asks.
    pub fn user_id(mut self, user_id: &str) -> Self {
        self.context.user_id = Some(user_id.to_owned());
        self
    }

    /// One value of the session.
    pub fn session_value(mut self, key: &str, value: Json) -> Self {
        Arc::make_mut(&mut self.context.session_data).insert(key.to_owned(), value);
        self
    }

    /// The context.
    pub fn build(self) -> Arc<RequestContext> {
        Arc::new(self.context)
    }
}

impl RequestContext {
    /// Begins the context of a request.
    ///
    /// ```
    /// use serde_json::json;
    /// use terrace_memory::context::RequestContext;
    ///
    /// let context = RequestContext::new("r1").user_id("ada").build();
    /// context.run(|| {
    ///     RequestContext::set_session_value("theme", json!("dark"))?;
    ///     let current = RequestContext::current().unwrap();
    ///     assert_eq!(current.session_value("theme"), Some(&json!("dark")));
    ///     Ok::<(), terrace_memory::Error>(())
    /// })?;
    /// assert!(RequestContext::current().is_none());
    /// assert_eq!(context.session_value("theme"), None);
    /// # Ok::<(), terrace_memory::Error>(())
    /// ```
    #[doc(alias = "set_request_context")]
    #[expect(clippy::new_ret_no_self, reason = "the signature is the contract")]
    pub fn new(request_id: &str) -> Builder {
        let request_id = request_id.to_owned();
        Builder { context: Self { request_id, user_id: None, session_data: Arc::default() } }
    }

    /// Which request.
    pub fn request_id(&self) -> &str {
        &self.request_id
    }

    /// Who asks, if that is known.
    pub fn user_id(&self) -> Option<&str> {
        self.user_id.as_deref()
    }

    /// One value of the session.
    pub fn session_value(&self, key: &str) -> Option<&Json> {
        self.session_data.get(key)
    }

    /// All values of the session.
    pub fn session_data(&self) -> &BTreeMap<String, Json> {
        &self.session_data
    }

    /// Makes it the current one of this thread until the guard is dropped; then the one before is
    /// current again, whichever order guards are dropped in.
    pub fn enter(self: &Arc<Self>) -> ContextGuard {
        let id = GUARDS.replace(GUARDS.get() + 1);
        ENTERED.with_borrow_mut(|entered| entered.push((id, Arc::clone(self))));
        ContextGuard { id, of_this_thread: PhantomData }
    }

    /// The current one of this thread.
    pub fn current() -> Option<Arc<Self>> {
        ENTERED.with_borrow(|entered| entered.last().map(|(_, context)| Arc::clone(context)))
    }

    /// Runs `f` with this as the current one. It is left also when `f` panics.
    #[doc(alias = "run_with_context")]
    pub fn run<R>(self: &Arc<Self>, f: impl FnOnce() -> R) -> R {
        let _entered = self.enter();
        f()
    }

    /// `f` with this context around it, to be run anywhere: the way into another thread.
    pub fn wrap<F: FnOnce() + Send + 'static>(
        self: &Arc<Self>,
        f: F,
    ) -> impl FnOnce() + Send + use<F> {
        let context = Arc::clone(self);
        move || context.run(f)
    }

    /// Sets a value of the session in the current context of this thread, until that is left.
    /// Contexts that others hold, in other threads too, stay as they are.
    ///
    /// Errors: [`Error::Invalid`] when there is no current one.
    pub fn set_session_value(key: &str, value: Json) -> Result<()> {
        ENTERED.with_borrow_mut(|entered| {
            let (_, current) =
                entered.last_mut().ok_or(Error::Invalid("no request context was entered"))?;
            let context = Arc::make_mut(current);
            Arc::make_mut(&mut context.session_data).insert(key.to_owned(), value);
            Ok(())
        })
    }
}

/// Leaves a context when it is dropped. It belongs to the thread that entered.
#[derive(Debug)]
#[must_use = "the context is left when this is dropped"]
pub struct ContextGuard {
    id: u64,
    of_this_thread: PhantomData<*const ()>,
}

impl Drop for ContextGuard {
    fn drop(&mut self) {
        // Empty while the thread ends: then there is nothing to leave.
        let _ = ENTERED.try_with(|entered| {
            entered.borrow_mut().retain(|(id, _)| *id != self.id);
        });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn current_id() -> Option<String> {
        RequestContext::current().map(|context| context.request_id().to_owned())
    }

    #[test]
    fn leaving_restores_the_one_before_in_any_order_and_after_a_panic() {
        let (a, b) = (RequestContext::new("a").build(), RequestContext::new("b").build());
        let first = a.enter();
        let second = b.enter();
        assert_eq!(current_id().as_deref(), Some("b"));
        drop(first);
        assert_eq!(current_id().as_deref(), Some("b"));
        drop(second);
        assert_eq!(current_id(), None);
        let _outer = a.enter();
        let panicking = || b.run(|| panic!("inside"));
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(panicking)).is_err());
        assert_eq!(current_id().as_deref(), Some("a"));
    }

    #[test]
    fn a_value_that_is_set_is_seen_inside_and_by_nobody_else() {
        let context = RequestContext::new("a").user_id("u").session_value("n", json!(1)).build();
        assert!(matches!(RequestContext::set_session_value("n", json!(2)), Err(Error::Invalid(_))));
        let n = |context: &RequestContext| context.session_value("n").cloned();
        context.run(|| {
            let held = RequestContext::current().unwrap();
            RequestContext::set_session_value("n", json!(2)).unwrap();
            assert_eq!(n(&RequestContext::current().unwrap()), Some(json!(2)));
            assert_eq!(n(&held), Some(json!(1)));
            held.run(|| RequestContext::set_session_value("n", json!(3)).unwrap());
            assert_eq!(n(&RequestContext::current().unwrap()), Some(json!(2)));
        });
        assert_eq!((n(&context), context.user_id()), (Some(json!(1)), Some("u")));
        assert_eq!(context.session_data().len(), 1);
    }

    #[test]
    fn threads_have_it_only_when_it_is_carried_there() {
        let context = RequestContext::new("a").build();
        let _entered = context.enter();
        let (sender, receiver) = std::sync::mpsc::channel();
        let plain = sender.clone();
        std::thread::scope(|scope| {
            scope.spawn(move || plain.send(current_id()).unwrap());
            assert_eq!(receiver.recv().unwrap(), None);
            scope.spawn(context.wrap(move || sender.send(current_id()).unwrap()));
            assert_eq!(receiver.recv().unwrap().as_deref(), Some("a"));
        });
    }
}
