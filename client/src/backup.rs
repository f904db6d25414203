//! Calls for backups: each at one node and no other, once. Never here: retries, files, which node to ask (the caller knows
//! both the status of the cluster and what it has already).
//! Invariant: no call and no message of a stream is waited for without a bound.

use std::{fmt, time::Duration};

use futures_util::Stream;
use tidemark_proto::v1::{self, backup_service_client::BackupServiceClient};
use tokio::time::timeout;
use tonic::{Code, Response, Status, Streaming};

use crate::{
    call::with_deadline,
    client::Client,
    cluster_tag::Lane,
    error::{Error, Failed},
};

/// Longest life of one call: a checkpoint of terabytes is digested before it is answered.
const CALL_MAX: Duration = Duration::from_secs(12 * 3_600);

impl Client {
    /// Takes a checkpoint of a shard at the node at `address`.
    ///
    /// # Errors
    /// `NOT_LEADER` where the node does not lead the shard; what else the node refuses, or no answer within `wait`.
    pub async fn begin_backup(
        &self,
        address: &str,
        request: v1::BeginBackupRequest,
        wait: Duration,
    ) -> Result<v1::BeginBackupResponse, Error> {
        let max = self.core.options.max_answer_bytes;
        self.at(address, wait, |channel| async move {
            BackupServiceClient::new(channel)
                .max_decoding_message_size(max)
                .begin_backup(with_deadline(request, wait))
                .await
        })
        .await
    }

    /// One file of a checkpoint, from an offset on.
    ///
    /// # Errors
    /// What the node refuses, or no answer.
    pub async fn read_backup_file(
        &self,
        address: &str,
        request: v1::ReadBackupFileRequest,
    ) -> Result<Pieces<v1::BackupPiece>, Error> {
        let stream = self.at(address, self.core.options.timeout, |channel| async move {
            BackupServiceClient::new(channel)
                .read_backup_file(with_deadline(request, CALL_MAX))
                .await
        });
        Ok(Pieces {
            stream: stream.await?,
            wait: self.core.options.timeout,
        })
    }

    /// Lets a checkpoint go.
    ///
    /// # Errors
    /// What the node refuses, or no answer.
    pub async fn end_backup(&self, address: &str, backup: &str) -> Result<(), Error> {
        let request = v1::EndBackupRequest {
            backup: backup.to_owned(),
        };
        let wait = self.core.options.timeout;
        let ended = self.at(address, wait, |channel| async move {
            BackupServiceClient::new(channel)
                .end_backup(with_deadline(request, wait))
                .await
        });
        ended.await.map(|_: v1::EndBackupResponse| ())
    }

    /// Asks whether a shard can take a backup, or begins to restore it, from the node at `address`.
    ///
    /// # Errors
    /// `CLUSTER_NOT_EMPTY` where the shard has other devices; what else the node refuses, or no answer.
    pub async fn begin_restore(
        &self,
        address: &str,
        request: v1::BeginRestoreRequest,
    ) -> Result<v1::BeginRestoreResponse, Error> {
        let (wait, max) = (self.core.options.timeout, self.core.options.max_answer_bytes);
        self.at(address, wait, |channel| async move {
            BackupServiceClient::new(channel)
                .max_decoding_message_size(max)
                .begin_restore(with_deadline(request, wait))
                .await
        })
        .await
    }

    /// Brings one file to the node at `address`. The messages are a header and pieces in order.
    ///
    /// # Errors
    /// What the node refuses, or no answer within `wait`.
    pub async fn upload_backup_file(
        &self,
        address: &str,
        messages: impl Stream<Item = v1::UploadBackupFileRequest> + Send + 'static,
        wait: Duration,
    ) -> Result<(), Error> {
        let uploaded = self.at(address, wait, |channel| async move {
            BackupServiceClient::new(channel)
                .upload_backup_file(with_deadline(messages, wait))
                .await
        });
        uploaded.await.map(|_: v1::UploadBackupFileResponse| ())
    }

    /// Has uploaded files committed to their shard; the last message says that it is done.
    ///
    /// # Errors
    /// What the node refuses, or no answer.
    pub async fn restore_shard(
        &self,
        address: &str,
        request: v1::RestoreShardRequest,
    ) -> Result<Pieces<v1::RestoreShardResponse>, Error> {
        let stream = self.at(address, self.core.options.timeout, |channel| async move {
            BackupServiceClient::new(channel)
                .restore_shard(with_deadline(request, CALL_MAX))
                .await
        });
        // An entry may have to wait for an election.
        Ok(Pieces {
            stream: stream.await?,
            wait: self.core.options.timeout.max(Duration::from_secs(90)),
        })
    }

    async fn at<R, F, Fut>(&self, address: &str, wait: Duration, ask: F) -> Result<R, Error>
    where
        F: FnOnce(Lane) -> Fut,
        Fut: Future<Output = Result<Response<R>, Status>>,
    {
        let node = self.core.nodes.at(address, &self.core.options)?;
        let channel = node.channel().await.map_err(|failed| failed.error)?;
        match timeout(wait, ask(channel)).await {
            Ok(Ok(answer)) => {
                node.worked();
                Ok(answer.into_inner())
            }
            Ok(Err(status)) => {
                let failed = Failed::from(status);
                if failed.node_at_fault {
                    node.failed();
                }
                Err(failed.error)
            }
            Err(_) => {
                let message = format!("no answer from {address} in {wait:.1?}");
                Err(Error::local(Code::DeadlineExceeded, "TIMEOUT", message))
            }
        }
    }
}

/// Messages of a stream as they come.
pub struct Pieces<M> {
    stream: Streaming<M>,
    wait: Duration,
}

impl<M> fmt::Debug for Pieces<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pieces").finish_non_exhaustive()
    }
}

impl<M> Pieces<M> {
    /// The next message; `None` after the last.
    ///
    /// # Errors
    /// Whatever ended the stream early.
    pub async fn next(&mut self) -> Result<Option<M>, Error> {
        match timeout(self.wait, self.stream.message()).await {
            Ok(message) => message.map_err(Error::from),
            Err(_) => Err(Error::local(
                Code::DeadlineExceeded,
                "ANSWER_TIMEOUT",
                "the stream stopped coming",
            )),
        }
    }
}
