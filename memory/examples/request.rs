//! Who asks, through calls and into threads, and nothing left behind for the next request.

use serde_json::json;
use terrace_memory::context::RequestContext;

/// Somewhere deep below, where nobody passed anything.
fn deep() -> String {
    let context = RequestContext::current();
    let user = context.as_ref().and_then(|context| context.user_id().map(str::to_owned));
    user.unwrap_or_else(|| "nobody".to_owned())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    assert_eq!(deep(), "nobody");
    let context = RequestContext::new("request-7").user_id("ada").build();
    {
        let _entered = context.enter();
        RequestContext::set_session_value("language", json!("ko"))?;
        assert_eq!(deep(), "ada");
        let inner = RequestContext::new("request-8").user_id("grace").build();
        assert_eq!(inner.run(deep), "grace");
        assert_eq!(deep(), "ada", "the one before is current again");

        let current = RequestContext::current().ok_or("no context")?;
        std::thread::scope(|scope| {
            scope.spawn(current.wrap(|| assert_eq!(deep(), "ada")));
            scope.spawn(|| assert_eq!(deep(), "nobody"));
        });
    }
    assert_eq!(deep(), "nobody");
    assert_eq!(context.session_value("language"), None, "a context never changes");
    println!("every thread knew who asked");
    Ok(())
}
