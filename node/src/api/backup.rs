//! `BackupService`.

use std::sync::Arc;

use futures_util::StreamExt as _;
use tidemark_proto::v1::backup_service_server::BackupService;
use tidemark_proto::v1::upload_backup_file_request::Part;
use tidemark_proto::v1::{
    BackupPiece, BeginBackupRequest, BeginBackupResponse, BeginRestoreRequest, BeginRestoreResponse, EndBackupRequest,
    EndBackupResponse, ReadBackupFileRequest, RestoreShardRequest, RestoreShardResponse, UploadBackupFileRequest,
    UploadBackupFileResponse,
};
use tonic::{Request, Response, Status, Streaming};

use super::{Answered, Streamed, answered, streamed};
use crate::backup::Backups;
use crate::error::{Error, Reason};

/// Copies of shards, and the way back.
pub struct BackupApi {
    /// Does the work.
    pub backups: Arc<Backups>,
}

#[tonic::async_trait]
impl BackupService for BackupApi {
    type ReadBackupFileStream = Streamed<BackupPiece>;
    type RestoreShardStream = Streamed<RestoreShardResponse>;

    async fn begin_backup(&self, request: Request<BeginBackupRequest>) -> Answered<BeginBackupResponse> {
        answered(self.backups.begin(request.into_inner()).await)
    }

    async fn read_backup_file(
        &self,
        request: Request<ReadBackupFileRequest>,
    ) -> Result<Response<Self::ReadBackupFileStream>, Status> {
        streamed(self.backups.read(&request.into_inner()))
    }

    async fn end_backup(&self, request: Request<EndBackupRequest>) -> Answered<EndBackupResponse> {
        let ended = self.backups.end(&request.into_inner().backup).await;
        answered(ended.map(|()| EndBackupResponse {}))
    }

    async fn begin_restore(&self, request: Request<BeginRestoreRequest>) -> Answered<BeginRestoreResponse> {
        answered(self.backups.begin_restore(request.into_inner()).await)
    }

    async fn upload_backup_file(
        &self,
        request: Request<Streaming<UploadBackupFileRequest>>,
    ) -> Answered<UploadBackupFileResponse> {
        let mut messages = request.into_inner();
        let Some(UploadBackupFileRequest {
            part: Some(Part::Header(header)),
        }) = messages.message().await?
        else {
            return answered(Err(Error::new(
                Reason::MissingField,
                "an upload begins with its header",
            )));
        };
        let pieces = messages.map(|message| match message {
            Ok(UploadBackupFileRequest {
                part: Some(Part::Piece(piece)),
            }) => Ok(piece),
            Ok(_) => Err(Error::new(Reason::MissingField, "a second header")),
            Err(status) => Err(Error::new(Reason::Unreachable, status.message())),
        });
        let uploaded = self.backups.upload(header, pieces).await;
        answered(uploaded.map(|()| UploadBackupFileResponse {}))
    }

    async fn restore_shard(
        &self,
        request: Request<RestoreShardRequest>,
    ) -> Result<Response<Self::RestoreShardStream>, Status> {
        streamed(self.backups.restore(request.into_inner()))
    }
}
