//! A gRPC server on a free port and a runtime of its own, so that it can be killed. Also for the tests of other crates.
//! Never here: what it answers. Invariant: it listens before it is handed out.

use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::server::Router;

/// Serves until it is killed or dropped.
pub(crate) struct Hosted {
    pub address: String,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Hosted {
    pub(crate) fn start(services: Router) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            services
                .serve_with_incoming(TcpListenerStream::new(listener))
                .await
                .unwrap();
        });
        Self {
            address,
            runtime: Some(runtime),
        }
    }

    /// Stops answering at once, connections and all.
    pub(crate) fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Hosted {
    fn drop(&mut self) {
        self.kill();
    }
}
