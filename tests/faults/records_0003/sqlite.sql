BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0003');
CREATE TABLE api_keys (
	org_id VARCHAR(63) NOT NULL, 
	prefix VARCHAR(16) NOT NULL, 
	digest VARCHAR(64) NOT NULL, 
	subject VARCHAR(200) NOT NULL, 
	roles JSON NOT NULL, 
	created_at DATETIME NOT NULL, 
	expires_at DATETIME, 
	revoked_at DATETIME, 
	PRIMARY KEY (org_id, prefix), 
	FOREIGN KEY(org_id) REFERENCES organizations (id), 
	UNIQUE (prefix)
);
INSERT INTO "api_keys" VALUES('default','8qogxttd2zp2','c24363ba0ad836f670e5fd87982e2b1b65b079fae983bacdfabcd3a11e2bbaea','a-viewer','["viewer"]','2026-11-28 12:13:27.878439',NULL,NULL);
INSERT INTO "api_keys" VALUES('default','326wcxbi32xy','d8750e6fe0a4987ce80410fc1bd19122f7a25c8905a11d24ab5d757dc136270b','a-runner','["runner"]','2026-11-28 12:13:27.883844',NULL,'2026-11-28 12:13:27.888071');
CREATE TABLE audit (
	id INTEGER NOT NULL, 
	org_id VARCHAR(63) NOT NULL, 
	subject VARCHAR(200) NOT NULL, 
	action VARCHAR(60) NOT NULL, 
	object VARCHAR(200) NOT NULL, 
	at DATETIME NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(org_id) REFERENCES organizations (id)
);
INSERT INTO "audit" VALUES(1,'default','me','put pipeline','orders','2026-11-28 12:13:27.817194');
INSERT INTO "audit" VALUES(2,'default','me','put pipeline','after_orders','2026-11-28 12:13:27.835091');
INSERT INTO "audit" VALUES(3,'default','me','put pipeline','gone','2026-11-28 12:13:27.849001');
INSERT INTO "audit" VALUES(4,'default','me','put pipeline','flaky','2026-11-28 12:13:27.861571');
INSERT INTO "audit" VALUES(5,'default','me','put pipeline','untouched','2026-11-28 12:13:27.876458');
INSERT INTO "audit" VALUES(6,'default','me','issue key','8qogxttd2zp2 viewer a-viewer','2026-11-28 12:13:27.879459');
INSERT INTO "audit" VALUES(7,'default','me','issue key','326wcxbi32xy runner a-runner','2026-11-28 12:13:27.884223');
INSERT INTO "audit" VALUES(8,'default','me','revoke key','326wcxbi32xy a-runner','2026-11-28 12:13:27.888760');
INSERT INTO "audit" VALUES(9,'default','me','trigger','orders','2026-11-28 12:13:27.893545');
INSERT INTO "audit" VALUES(10,'default','me','trigger','gone','2026-11-28 12:13:28.880604');
INSERT INTO "audit" VALUES(11,'default','me','trigger','gone','2026-11-28 12:13:29.033806');
INSERT INTO "audit" VALUES(12,'default','me','reset','gone','2026-11-28 12:13:29.188255');
INSERT INTO "audit" VALUES(13,'default','me','delete pipeline','gone','2026-11-28 12:13:29.216518');
INSERT INTO "audit" VALUES(14,'default','me','trigger','flaky','2026-11-28 12:13:29.220497');
INSERT INTO "audit" VALUES(15,'default','me','trigger','after_orders','2026-11-28 12:13:29.373527');
INSERT INTO "audit" VALUES(16,'default','me','reset','orders','2026-11-28 12:13:29.386391');
INSERT INTO "audit" VALUES(17,'default','me','trigger','orders','2026-11-28 12:13:29.416436');
INSERT INTO "audit" VALUES(18,'default','me','trigger','orders','2026-11-28 12:13:29.426876');
CREATE TABLE connection_revisions (
	org_id VARCHAR(63) NOT NULL, 
	name VARCHAR(63) NOT NULL, 
	revision INTEGER NOT NULL, 
	document JSON NOT NULL, 
	updated_by VARCHAR(200) NOT NULL, 
	updated_at DATETIME NOT NULL, 
	PRIMARY KEY (org_id, name, revision), 
	FOREIGN KEY(org_id, name) REFERENCES connections (org_id, name)
);
CREATE TABLE connections (
	org_id VARCHAR(63) NOT NULL, 
	name VARCHAR(63) NOT NULL, 
	revision INTEGER NOT NULL, 
	is_deleted BOOLEAN NOT NULL, 
	PRIMARY KEY (org_id, name), 
	FOREIGN KEY(org_id) REFERENCES organizations (id)
);
CREATE TABLE events (
	id INTEGER NOT NULL, 
	org_id VARCHAR(63) NOT NULL, 
	event_type VARCHAR(60) NOT NULL, 
	payload JSON NOT NULL, 
	created_at DATETIME NOT NULL, 
	sent_at DATETIME, run_id VARCHAR(36), 
	PRIMARY KEY (id), 
	FOREIGN KEY(org_id) REFERENCES organizations (id)
);
INSERT INTO "events" VALUES(1,'default','pipeline.queued','{"organization": "default", "pipeline": "orders", "run_id": "01a22213-1dd2-7687-bad7-3f5e009e7959", "cause": null}','2026-11-28 12:13:27.892823','2026-11-28 12:13:28.285536','01a22213-1dd2-7687-bad7-3f5e009e7959');
INSERT INTO "events" VALUES(2,'default','pipeline.started','{"organization": "default", "pipeline": "orders", "run_id": "01a22213-1dd2-7687-bad7-3f5e009e7959", "attempt": 1, "fence": 1}','2026-11-28 12:13:27.902687','2026-11-28 12:13:28.285536','01a22213-1dd2-7687-bad7-3f5e009e7959');
INSERT INTO "events" VALUES(3,'default','pipeline.completed','{"organization": "default", "pipeline": "orders", "run_id": "01a22213-1dd2-7687-bad7-3f5e009e7959", "state": "succeeded", "rows_read": 4, "rows_used": 4, "duration_seconds": 0.366, "code": null, "message": null}','2026-11-28 12:13:28.276532','2026-11-28 12:13:28.285536','01a22213-1dd2-7687-bad7-3f5e009e7959');
INSERT INTO "events" VALUES(4,'default','pipeline.queued','{"organization": "default", "pipeline": "after_orders", "run_id": "01a22213-1f5c-7508-9066-63f0f2c9c08a", "cause": "01a22213-1dd2-7687-bad7-3f5e009e7959"}','2026-11-28 12:13:28.285224','2026-11-28 12:13:28.292044','01a22213-1f5c-7508-9066-63f0f2c9c08a');
INSERT INTO "events" VALUES(5,'default','pipeline.started','{"organization": "default", "pipeline": "after_orders", "run_id": "01a22213-1f5c-7508-9066-63f0f2c9c08a", "attempt": 1, "fence": 1}','2026-11-28 12:13:28.712976',NULL,'01a22213-1f5c-7508-9066-63f0f2c9c08a');
INSERT INTO "events" VALUES(6,'default','pipeline.completed','{"organization": "default", "pipeline": "after_orders", "run_id": "01a22213-1f5c-7508-9066-63f0f2c9c08a", "state": "succeeded", "rows_read": 4, "rows_used": 4, "duration_seconds": 0.144, "code": null, "message": null}','2026-11-28 12:13:28.865159',NULL,'01a22213-1f5c-7508-9066-63f0f2c9c08a');
INSERT INTO "events" VALUES(7,'default','pipeline.queued','{"organization": "default", "pipeline": "gone", "run_id": "01a22213-21af-7518-9676-dd64c28b96a6", "cause": null}','2026-11-28 12:13:28.880343',NULL,'01a22213-21af-7518-9676-dd64c28b96a6');
INSERT INTO "events" VALUES(8,'default','pipeline.started','{"organization": "default", "pipeline": "gone", "run_id": "01a22213-21af-7518-9676-dd64c28b96a6", "attempt": 1, "fence": 1}','2026-11-28 12:13:28.888907',NULL,'01a22213-21af-7518-9676-dd64c28b96a6');
INSERT INTO "events" VALUES(9,'default','pipeline.completed','{"organization": "default", "pipeline": "gone", "run_id": "01a22213-21af-7518-9676-dd64c28b96a6", "state": "succeeded", "rows_read": 4, "rows_used": 4, "duration_seconds": 0.133, "code": null, "message": null}','2026-11-28 12:13:29.029229',NULL,'01a22213-21af-7518-9676-dd64c28b96a6');
INSERT INTO "events" VALUES(10,'default','pipeline.queued','{"organization": "default", "pipeline": "gone", "run_id": "01a22213-2248-72a6-90b9-dc206f87810b", "cause": null}','2026-11-28 12:13:29.033550',NULL,'01a22213-2248-72a6-90b9-dc206f87810b');
INSERT INTO "events" VALUES(11,'default','pipeline.started','{"organization": "default", "pipeline": "gone", "run_id": "01a22213-2248-72a6-90b9-dc206f87810b", "attempt": 1, "fence": 2}','2026-11-28 12:13:29.038836',NULL,'01a22213-2248-72a6-90b9-dc206f87810b');
INSERT INTO "events" VALUES(12,'default','pipeline.completed','{"organization": "default", "pipeline": "gone", "run_id": "01a22213-2248-72a6-90b9-dc206f87810b", "state": "succeeded", "rows_read": 0, "rows_used": 0, "duration_seconds": 0.121, "code": null, "message": null}','2026-11-28 12:13:29.164447',NULL,'01a22213-2248-72a6-90b9-dc206f87810b');
INSERT INTO "events" VALUES(13,'default','pipeline.queued','{"organization": "default", "pipeline": "flaky", "run_id": "01a22213-2303-71c0-8366-d2cf89266df4", "cause": null}','2026-11-28 12:13:29.220229',NULL,'01a22213-2303-71c0-8366-d2cf89266df4');
INSERT INTO "events" VALUES(14,'default','pipeline.started','{"organization": "default", "pipeline": "flaky", "run_id": "01a22213-2303-71c0-8366-d2cf89266df4", "attempt": 1, "fence": 1}','2026-11-28 12:13:29.226686',NULL,'01a22213-2303-71c0-8366-d2cf89266df4');
INSERT INTO "events" VALUES(15,'default','batch.failed','{"organization": "default", "pipeline": "flaky", "run_id": "01a22213-2303-71c0-8366-d2cf89266df4", "batch_id": "01a22213-2303-71c0-8366-d2cf89266df4", "code": "store.unavailable", "message": "The store was gone after the batch."}','2026-11-28 12:13:29.369784',NULL,'01a22213-2303-71c0-8366-d2cf89266df4');
INSERT INTO "events" VALUES(16,'default','pipeline.released','{"organization": "default", "pipeline": "flaky", "run_id": "01a22213-2303-71c0-8366-d2cf89266df4", "reason": "retry: store.unavailable", "retry": 0, "pause_seconds": 0.001028}','2026-11-28 12:13:29.369784',NULL,'01a22213-2303-71c0-8366-d2cf89266df4');
INSERT INTO "events" VALUES(17,'default','pipeline.queued','{"organization": "default", "pipeline": "after_orders", "run_id": "01a22213-239c-716f-ad28-6859c7a128f3", "cause": null}','2026-11-28 12:13:29.373268',NULL,'01a22213-239c-716f-ad28-6859c7a128f3');
INSERT INTO "events" VALUES(18,'default','pipeline.queued','{"organization": "default", "pipeline": "orders", "run_id": "01a22213-23c7-77eb-aae8-7180611a91d3", "cause": null}','2026-11-28 12:13:29.416074',NULL,'01a22213-23c7-77eb-aae8-7180611a91d3');
INSERT INTO "events" VALUES(19,'default','pipeline.started','{"organization": "default", "pipeline": "orders", "run_id": "01a22213-23c7-77eb-aae8-7180611a91d3", "attempt": 1, "fence": 3}','2026-11-28 12:13:29.423352',NULL,'01a22213-23c7-77eb-aae8-7180611a91d3');
INSERT INTO "events" VALUES(20,'default','pipeline.queued','{"organization": "default", "pipeline": "orders", "run_id": "01a22213-23d1-7404-b04a-a7011e3f750f", "cause": null}','2026-11-28 12:13:29.426608',NULL,'01a22213-23d1-7404-b04a-a7011e3f750f');
CREATE TABLE followers (
	org_id VARCHAR(63) NOT NULL, 
	"after" VARCHAR(63) NOT NULL, 
	pipeline VARCHAR(63) NOT NULL, 
	PRIMARY KEY (org_id, "after", pipeline), 
	FOREIGN KEY(org_id, pipeline) REFERENCES pipelines (org_id, name)
);
INSERT INTO "followers" VALUES('default','orders','after_orders');
CREATE TABLE organizations (
	id VARCHAR(63) NOT NULL, 
	created_at DATETIME NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "organizations" VALUES('default','2026-11-28 12:13:27.491735');
CREATE TABLE pipeline_revisions (
	org_id VARCHAR(63) NOT NULL, 
	name VARCHAR(63) NOT NULL, 
	revision INTEGER NOT NULL, 
	document JSON NOT NULL, 
	updated_by VARCHAR(200) NOT NULL, 
	updated_at DATETIME NOT NULL, 
	PRIMARY KEY (org_id, name, revision), 
	FOREIGN KEY(org_id, name) REFERENCES pipelines (org_id, name)
);
INSERT INTO "pipeline_revisions" VALUES('default','orders',1,'{"version": 1, "pipeline": "orders", "source": {"table": "source", "cursor": {"column": "id"}, "key": ["id"]}, "transform": [{"sql": "select * from batch"}], "destination": {"table": "orders_copy", "mode": "append", "metadata_columns": true}, "run": {"batch_rows": 3, "engine": "local"}}','me','2026-11-28 12:13:27.815554');
INSERT INTO "pipeline_revisions" VALUES('default','after_orders',1,'{"version": 1, "pipeline": "after_orders", "source": {"table": "orders_copy", "cursor": {"column": "id"}, "key": ["id"]}, "transform": [{"sql": "select * from batch"}], "destination": {"table": "after_copy", "mode": "append", "metadata_columns": true}, "run": {"batch_rows": 3, "engine": "local"}, "schedule": {"after": ["orders"]}}','me','2026-11-28 12:13:27.833742');
INSERT INTO "pipeline_revisions" VALUES('default','gone',1,'{"version": 1, "pipeline": "gone", "source": {"table": "source", "cursor": {"column": "id"}, "key": ["id"]}, "transform": [{"sql": "select * from batch"}], "destination": {"table": "gone_copy", "mode": "append", "metadata_columns": true}, "run": {"batch_rows": 3, "engine": "local"}}','me','2026-11-28 12:13:27.848184');
INSERT INTO "pipeline_revisions" VALUES('default','flaky',1,'{"version": 1, "pipeline": "flaky", "source": {"table": "source", "cursor": {"column": "id"}, "key": ["id"]}, "transform": [{"sql": "select * from batch"}], "destination": {"table": "flaky_copy", "mode": "append", "metadata_columns": true}, "run": {"batch_rows": 3, "engine": "local"}, "retry": {"attempts": 5, "backoff": "1ms"}}','me','2026-11-28 12:13:27.860830');
INSERT INTO "pipeline_revisions" VALUES('default','untouched',1,'{"version": 1, "pipeline": "untouched", "source": {"table": "source", "cursor": {"column": "id"}, "key": ["id"]}, "transform": [{"sql": "select * from batch"}], "destination": {"table": "untouched_copy", "mode": "append", "metadata_columns": true}, "run": {"batch_rows": 3, "engine": "local"}}','me','2026-11-28 12:13:27.875742');
CREATE TABLE pipelines (
	org_id VARCHAR(63) NOT NULL, 
	name VARCHAR(63) NOT NULL, 
	revision INTEGER NOT NULL, 
	is_deleted BOOLEAN NOT NULL, 
	fence INTEGER NOT NULL, 
	PRIMARY KEY (org_id, name), 
	FOREIGN KEY(org_id) REFERENCES organizations (id)
);
INSERT INTO "pipelines" VALUES('default','orders',1,0,3);
INSERT INTO "pipelines" VALUES('default','after_orders',1,0,1);
INSERT INTO "pipelines" VALUES('default','gone',1,1,3);
INSERT INTO "pipelines" VALUES('default','flaky',1,0,2);
INSERT INTO "pipelines" VALUES('default','untouched',1,0,0);
CREATE TABLE run_transitions (
	id INTEGER NOT NULL, 
	org_id VARCHAR(63) NOT NULL, 
	run_id VARCHAR(36) NOT NULL, 
	"before" VARCHAR(12), 
	"after" VARCHAR(12) NOT NULL, 
	fence INTEGER NOT NULL, 
	actor VARCHAR(200) NOT NULL, 
	reason VARCHAR(200) NOT NULL, 
	at DATETIME NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(org_id, run_id) REFERENCES runs (org_id, id)
);
INSERT INTO "run_transitions" VALUES(1,'default','01a22213-1dd2-7687-bad7-3f5e009e7959',NULL,'queued',0,'me','requested','2026-11-28 12:13:27.891027');
INSERT INTO "run_transitions" VALUES(2,'default','01a22213-1dd2-7687-bad7-3f5e009e7959','queued','running',1,'00000000-0000-4000-8000-000000000000:4711:1000','claimed','2026-11-28 12:13:27.901931');
INSERT INTO "run_transitions" VALUES(3,'default','01a22213-1dd2-7687-bad7-3f5e009e7959','running','succeeded',1,'00000000-0000-4000-8000-000000000000:4711:1000','published','2026-11-28 12:13:28.276192');
INSERT INTO "run_transitions" VALUES(4,'default','01a22213-1f5c-7508-9066-63f0f2c9c08a',NULL,'queued',0,'after:orders','requested','2026-11-28 12:13:28.284625');
INSERT INTO "run_transitions" VALUES(5,'default','01a22213-1f5c-7508-9066-63f0f2c9c08a','queued','running',1,'00000000-0000-4000-8000-000000000000:4711:1000','claimed','2026-11-28 12:13:28.712087');
INSERT INTO "run_transitions" VALUES(6,'default','01a22213-1f5c-7508-9066-63f0f2c9c08a','running','succeeded',1,'00000000-0000-4000-8000-000000000000:4711:1000','published','2026-11-28 12:13:28.864798');
INSERT INTO "run_transitions" VALUES(7,'default','01a22213-21af-7518-9676-dd64c28b96a6',NULL,'queued',0,'me','requested','2026-11-28 12:13:28.879642');
INSERT INTO "run_transitions" VALUES(8,'default','01a22213-21af-7518-9676-dd64c28b96a6','queued','running',1,'00000000-0000-4000-8000-000000000000:4711:1000','claimed','2026-11-28 12:13:28.887590');
INSERT INTO "run_transitions" VALUES(9,'default','01a22213-21af-7518-9676-dd64c28b96a6','running','succeeded',1,'00000000-0000-4000-8000-000000000000:4711:1000','published','2026-11-28 12:13:29.028806');
INSERT INTO "run_transitions" VALUES(10,'default','01a22213-2248-72a6-90b9-dc206f87810b',NULL,'queued',0,'me','requested','2026-11-28 12:13:29.032904');
INSERT INTO "run_transitions" VALUES(11,'default','01a22213-2248-72a6-90b9-dc206f87810b','queued','running',2,'00000000-0000-4000-8000-000000000000:4711:1000','claimed','2026-11-28 12:13:29.038172');
INSERT INTO "run_transitions" VALUES(12,'default','01a22213-2248-72a6-90b9-dc206f87810b','running','succeeded',2,'00000000-0000-4000-8000-000000000000:4711:1000','published','2026-11-28 12:13:29.164093');
INSERT INTO "run_transitions" VALUES(13,'default','01a22213-2303-71c0-8366-d2cf89266df4',NULL,'queued',0,'me','requested','2026-11-28 12:13:29.219421');
INSERT INTO "run_transitions" VALUES(14,'default','01a22213-2303-71c0-8366-d2cf89266df4','queued','running',1,'00000000-0000-4000-8000-000000000000:4711:1000','claimed','2026-11-28 12:13:29.225751');
INSERT INTO "run_transitions" VALUES(15,'default','01a22213-2303-71c0-8366-d2cf89266df4','running','queued',2,'00000000-0000-4000-8000-000000000000:4711:1000','retry: store.unavailable','2026-11-28 12:13:29.369412');
INSERT INTO "run_transitions" VALUES(16,'default','01a22213-239c-716f-ad28-6859c7a128f3',NULL,'queued',0,'me','requested','2026-11-28 12:13:29.372610');
INSERT INTO "run_transitions" VALUES(17,'default','01a22213-23c7-77eb-aae8-7180611a91d3',NULL,'queued',0,'me','requested','2026-11-28 12:13:29.415107');
INSERT INTO "run_transitions" VALUES(18,'default','01a22213-23c7-77eb-aae8-7180611a91d3','queued','running',3,'00000000-0000-4000-8000-000000000000:4711:1000','claimed','2026-11-28 12:13:29.422692');
INSERT INTO "run_transitions" VALUES(19,'default','01a22213-23d1-7404-b04a-a7011e3f750f',NULL,'queued',0,'me','requested','2026-11-28 12:13:29.425721');
CREATE TABLE runs (
	org_id VARCHAR(63) NOT NULL, 
	id VARCHAR(36) NOT NULL, 
	pipeline VARCHAR(63) NOT NULL, 
	revision INTEGER NOT NULL, 
	lane VARCHAR(100) NOT NULL, 
	state VARCHAR(12) NOT NULL, 
	request JSON NOT NULL, 
	fence INTEGER NOT NULL, 
	attempt INTEGER NOT NULL, 
	reason VARCHAR(200), 
	read_set JSON, 
	report JSON, 
	error JSON, 
	requested_by VARCHAR(200) NOT NULL, 
	cancel_requested BOOLEAN NOT NULL, 
	not_before FLOAT NOT NULL, 
	lease_until FLOAT, 
	lease_owner VARCHAR(200), 
	rung_at FLOAT, 
	created_at DATETIME NOT NULL, 
	started_at DATETIME, 
	finished_at DATETIME, progress INTEGER DEFAULT '0' NOT NULL, fruitless INTEGER DEFAULT '0' NOT NULL, retries INTEGER DEFAULT '0' NOT NULL, cause VARCHAR(36), trace VARCHAR(55), 
	PRIMARY KEY (org_id, id), 
	FOREIGN KEY(org_id, pipeline) REFERENCES pipelines (org_id, name), 
	FOREIGN KEY(org_id) REFERENCES organizations (id), 
	UNIQUE (id)
);
INSERT INTO "runs" VALUES('default','01a22213-1dd2-7687-bad7-3f5e009e7959','orders',1,'main','succeeded','{"parameters": {}, "limit": null, "full_refresh": false, "abandon": false, "replay": null}',1,1,'published','{"id": "01a22213-1df2-7693-b05a-1b13f003015e", "fingerprint": "ea5887e5130eec90", "plan": {"columns": [["id", "int64"]], "streams": [{"name": "0", "lower": null, "upper": null}], "ordered": true, "order": ["id"], "lo": null, "hi": "5", "files": [], "limit": null, "is_text": false, "note": null, "warnings": [], "partition": null, "end": {"complete_as_of": "2026-11-28T12:13:26.938266+00:00", "held_back": [], "assumed": [], "unknown": [], "horizon": {"axis": "id int64", "life": "process", "at": 1795868007938266, "place": 5, "greatest": 4, "stood_since": 1795868007938266, "standing": {}}}, "guessed": [], "unproved": [], "is_proved": false, "untrusted": null}, "batch_rows": 3, "shadow": null, "expected": null, "baseline": null, "generation": 0, "batch_bytes": 67108864, "is_adopted": false, "completed_first": null}','{"read_set": "01a22213-1df2-7693-b05a-1b13f003015e", "adopted": false, "watermark": "5", "complete_as_of": "2026-11-28T12:13:26.938266+00:00", "published": "batch", "way": "arrow", "way_because": "a transform or conversion changes the rows", "snapshots": 1, "counts": {"read": 4, "used": 4, "filtered": 0, "produced": 4, "deduplicated": 0, "quarantined": 0, "failed": 0}, "bytes_read": 34, "batches": 2, "retries": 0, "seconds": 0.092, "rows_per_second": 44, "rules": [], "first_errors": [], "streams": [{"stream": "0", "counts": {"read": 4, "used": 4, "filtered": 0, "produced": 4, "deduplicated": 0, "quarantined": 0, "failed": 0}, "seq": 2, "rows_read": 4, "batches": 2, "bytes_read": 34, "seconds": 0.09182308699382702, "retries": 0, "interrupted": false, "errors": [], "rows_per_second": 44}]}',NULL,'me',0,0.0,NULL,'00000000-0000-4000-8000-000000000000:4711:1000',0.0,'2026-11-28 12:13:27.891027','2026-11-28 12:13:27.899943','2026-11-28 12:13:28.274921',0,0,0,NULL,NULL);
INSERT INTO "runs" VALUES('default','01a22213-1f5c-7508-9066-63f0f2c9c08a','after_orders',1,'main','succeeded','{"parameters": {}, "limit": null, "full_refresh": false, "abandon": false, "replay": null}',1,1,'published','{"id": "01a22213-2126-7339-981c-5bb4387de847", "fingerprint": "2784f59deb6d531e", "plan": {"columns": [["id", "int64"], ["_headrace_loaded_at", "timestamptz"], ["_headrace_run_id", "uuid"]], "streams": [{"name": "0", "lower": null, "upper": null}], "ordered": true, "order": ["id"], "lo": null, "hi": "5", "files": [], "limit": null, "is_text": false, "note": null, "warnings": [], "partition": null, "end": {"complete_as_of": "2026-11-28T12:13:27.751178+00:00", "held_back": [], "assumed": [], "unknown": [], "horizon": {"axis": "id int64", "life": "process", "at": 1795868008751178, "place": 5, "greatest": 4, "stood_since": 1795868008751178, "standing": {}}}, "guessed": [], "unproved": [], "is_proved": false, "untrusted": null}, "batch_rows": 3, "shadow": null, "expected": null, "baseline": null, "generation": 0, "batch_bytes": 67108864, "is_adopted": false, "completed_first": null}','{"read_set": "01a22213-2126-7339-981c-5bb4387de847", "adopted": false, "watermark": "5", "complete_as_of": "2026-11-28T12:13:27.751178+00:00", "published": "batch", "way": "arrow", "way_because": "a transform or conversion changes the rows", "snapshots": 1, "counts": {"read": 4, "used": 4, "filtered": 0, "produced": 4, "deduplicated": 0, "quarantined": 0, "failed": 0}, "bytes_read": 230, "batches": 2, "retries": 0, "seconds": 0.068, "rows_per_second": 59, "rules": [], "first_errors": [], "streams": [{"stream": "0", "counts": {"read": 4, "used": 4, "filtered": 0, "produced": 4, "deduplicated": 0, "quarantined": 0, "failed": 0}, "seq": 2, "rows_read": 4, "batches": 2, "bytes_read": 230, "seconds": 0.06829143600043608, "retries": 0, "interrupted": false, "errors": [], "rows_per_second": 59}], "columns_left_out": ["_headrace_loaded_at, _headrace_run_id of the source: replaced by this pipeline''s own"]}',NULL,'after:orders',0,0.0,NULL,'00000000-0000-4000-8000-000000000000:4711:1000',1.79586800829383444778e+09,'2026-11-28 12:13:28.284625','2026-11-28 12:13:28.711179','2026-11-28 12:13:28.864081',0,0,0,'01a22213-1dd2-7687-bad7-3f5e009e7959',NULL);
INSERT INTO "runs" VALUES('default','01a22213-21af-7518-9676-dd64c28b96a6','gone',1,'main','succeeded','{"parameters": {}, "limit": null, "full_refresh": false, "abandon": false, "replay": null}',1,1,'published','{"id": "01a22213-21ca-70d8-89e9-e8099a2a0861", "fingerprint": "719a8dd63636cee3", "plan": {"columns": [["id", "int64"]], "streams": [{"name": "0", "lower": null, "upper": null}], "ordered": true, "order": ["id"], "lo": null, "hi": "5", "files": [], "limit": null, "is_text": false, "note": null, "warnings": [], "partition": null, "end": {"complete_as_of": "2026-11-28T12:13:27.920726+00:00", "held_back": [], "assumed": [], "unknown": [], "horizon": {"axis": "id int64", "life": "process", "at": 1795868008920726, "place": 5, "greatest": 4, "stood_since": 1795868008920726, "standing": {}}}, "guessed": [], "unproved": [], "is_proved": false, "untrusted": null}, "batch_rows": 3, "shadow": null, "expected": null, "baseline": null, "generation": 0, "batch_bytes": 67108864, "is_adopted": false, "completed_first": null}','{"read_set": "01a22213-21ca-70d8-89e9-e8099a2a0861", "adopted": false, "watermark": "5", "complete_as_of": "2026-11-28T12:13:27.920726+00:00", "published": "batch", "way": "arrow", "way_because": "a transform or conversion changes the rows", "snapshots": 1, "counts": {"read": 4, "used": 4, "filtered": 0, "produced": 4, "deduplicated": 0, "quarantined": 0, "failed": 0}, "bytes_read": 34, "batches": 2, "retries": 0, "seconds": 0.074, "rows_per_second": 54, "rules": [], "first_errors": [], "streams": [{"stream": "0", "counts": {"read": 4, "used": 4, "filtered": 0, "produced": 4, "deduplicated": 0, "quarantined": 0, "failed": 0}, "seq": 2, "rows_read": 4, "batches": 2, "bytes_read": 34, "seconds": 0.07414991499535972, "retries": 0, "interrupted": false, "errors": [], "rows_per_second": 54}]}',NULL,'me',0,0.0,NULL,'00000000-0000-4000-8000-000000000000:4711:1000',0.0,'2026-11-28 12:13:28.879642','2026-11-28 12:13:28.885964','2026-11-28 12:13:29.028131',0,0,0,NULL,NULL);
INSERT INTO "runs" VALUES('default','01a22213-2248-72a6-90b9-dc206f87810b','gone',1,'main','succeeded','{"parameters": {}, "limit": null, "full_refresh": false, "abandon": false, "replay": null}',2,1,'published','{"id": "01a22213-225d-7505-a974-fa8b1390416e", "fingerprint": "719a8dd63636cee3", "plan": {"columns": [["id", "int64"]], "streams": [{"name": "0", "lower": null, "upper": null}], "ordered": true, "order": ["id"], "lo": "5", "hi": "5", "files": [], "limit": null, "is_text": false, "note": null, "warnings": [], "partition": null, "end": {"complete_as_of": "2026-11-28T12:13:28.060159+00:00", "held_back": [], "assumed": [], "unknown": [], "horizon": {"axis": "id int64", "life": "process", "at": 1795868009060159, "place": 5, "greatest": 4, "stood_since": 1795868008920726, "standing": {}}}, "guessed": [], "unproved": [], "is_proved": false, "untrusted": null}, "batch_rows": 3, "shadow": null, "expected": null, "baseline": null, "generation": 2, "batch_bytes": 67108864, "is_adopted": false, "completed_first": null}','{"read_set": "01a22213-225d-7505-a974-fa8b1390416e", "adopted": false, "watermark": "5", "complete_as_of": "2026-11-28T12:13:28.060159+00:00", "published": "batch", "way": "arrow", "way_because": "a transform or conversion changes the rows", "snapshots": 1, "counts": {"read": 0, "used": 0, "filtered": 0, "produced": 0, "deduplicated": 0, "quarantined": 0, "failed": 0}, "bytes_read": 0, "batches": 0, "retries": 0, "seconds": 0.058, "rows_per_second": 0, "rules": [], "first_errors": [], "streams": [{"stream": "0", "counts": {"read": 0, "used": 0, "filtered": 0, "produced": 0, "deduplicated": 0, "quarantined": 0, "failed": 0}, "seq": 1, "rows_read": 0, "batches": 0, "bytes_read": 0, "seconds": 0.057611055999586824, "retries": 0, "interrupted": false, "errors": [], "rows_per_second": 0}]}',NULL,'me',0,0.0,NULL,'00000000-0000-4000-8000-000000000000:4711:1000',0.0,'2026-11-28 12:13:29.032904','2026-11-28 12:13:29.037256','2026-11-28 12:13:29.163419',0,0,0,NULL,NULL);
INSERT INTO "runs" VALUES('default','01a22213-2303-71c0-8366-d2cf89266df4','flaky',1,'main','queued','{"parameters": {}, "limit": null, "full_refresh": false, "abandon": false, "replay": null}',1,1,'retry: store.unavailable','{"id": "01a22213-231a-7442-ba92-37d0f24bf4f8", "fingerprint": "37be9e99949a589c", "plan": {"columns": [["id", "int64"]], "streams": [{"name": "0", "lower": null, "upper": null}], "ordered": true, "order": ["id"], "lo": null, "hi": "5", "files": [], "limit": null, "is_text": false, "note": null, "warnings": [], "partition": null, "end": {"complete_as_of": "2026-11-28T12:13:28.259483+00:00", "held_back": [], "assumed": [], "unknown": [], "horizon": {"axis": "id int64", "life": "process", "at": 1795868009259483, "place": 5, "greatest": 4, "stood_since": 1795868009259483, "standing": {}}}, "guessed": [], "unproved": [], "is_proved": false, "untrusted": null}, "batch_rows": 3, "shadow": null, "expected": null, "baseline": null, "generation": 0, "batch_bytes": 67108864, "is_adopted": false, "completed_first": null}',NULL,NULL,'me',0,1.79586800936692929267e+09,NULL,'00000000-0000-4000-8000-000000000000:4711:1000',0.0,'2026-11-28 12:13:29.219421','2026-11-28 12:13:29.224506',NULL,-1,0,1,NULL,NULL);
INSERT INTO "runs" VALUES('default','01a22213-239c-716f-ad28-6859c7a128f3','after_orders',1,'main','queued','{"parameters": {}, "limit": null, "full_refresh": false, "abandon": false, "replay": null}',0,0,NULL,NULL,NULL,NULL,'me',0,0.0,NULL,NULL,1.79586800937543940542e+09,'2026-11-28 12:13:29.372610',NULL,NULL,0,0,0,NULL,NULL);
INSERT INTO "runs" VALUES('default','01a22213-23c7-77eb-aae8-7180611a91d3','orders',1,'main','running','{"parameters": {}, "limit": null, "full_refresh": false, "abandon": false, "replay": null}',3,1,NULL,'{"id": "01a22213-24b1-7654-bf3a-1c6393473ef8", "fingerprint": "ea5887e5130eec90", "plan": {"columns": [["id", "int64"]], "streams": [{"name": "0", "lower": null, "upper": null}], "ordered": true, "order": ["id"], "lo": "5", "hi": "13", "files": [], "limit": null, "is_text": false, "note": null, "warnings": [], "partition": null, "end": {"complete_as_of": "2026-11-28T12:13:28.656543+00:00", "held_back": [], "assumed": [], "unknown": [], "horizon": {"axis": "id int64", "life": "process", "at": 1795868009656543, "place": 13, "greatest": 12, "stood_since": 1795868009656543, "standing": {}}}, "guessed": [], "unproved": [], "is_proved": false, "untrusted": null}, "batch_rows": 3, "shadow": null, "expected": null, "baseline": null, "generation": 3, "batch_bytes": 67108864, "is_adopted": false, "completed_first": null}',NULL,NULL,'me',0,0.0,59973.611586013,'00000000-0000-4000-8000-000000000000:4711:1000',0.0,'2026-11-28 12:13:29.415107','2026-11-28 12:13:29.421950',NULL,0,0,0,NULL,NULL);
INSERT INTO "runs" VALUES('default','01a22213-23d1-7404-b04a-a7011e3f750f','orders',1,'main','queued','{"parameters": {}, "limit": null, "full_refresh": false, "abandon": false, "replay": null}',0,0,NULL,NULL,NULL,NULL,'me',0,0.0,NULL,NULL,1.0e+18,'2026-11-28 12:13:29.425721',NULL,NULL,0,0,0,NULL,NULL);
CREATE TABLE workers (
	id VARCHAR(36) NOT NULL, 
	roles VARCHAR(40) NOT NULL, 
	host VARCHAR(200) NOT NULL, 
	process VARCHAR(200) NOT NULL, 
	version VARCHAR(40) NOT NULL, 
	concurrency INTEGER NOT NULL, 
	running INTEGER NOT NULL, 
	state VARCHAR(20) NOT NULL, 
	drain_requested BOOLEAN NOT NULL, 
	started_at DATETIME NOT NULL, 
	seen FLOAT NOT NULL, 
	PRIMARY KEY (id)
);
CREATE INDEX unsent_events ON events (id) WHERE sent_at IS NULL;
CREATE UNIQUE INDEX one_claimed_run_per_lane ON runs (org_id, pipeline, lane) WHERE state = 'running';
CREATE INDEX runs_of_a_pipeline ON runs (org_id, pipeline, id);
CREATE INDEX unfinished_runs ON runs (state, created_at) WHERE state IN ('queued', 'running');
CREATE INDEX transitions_of_a_run ON run_transitions (org_id, run_id, id);
CREATE INDEX queued_runs_by_ring ON runs (rung_at) WHERE state = 'queued';
CREATE INDEX running_runs_by_lease ON runs (lease_until) WHERE state = 'running';
CREATE INDEX queued_runs_of_a_lane ON runs (org_id, pipeline, lane, id) WHERE state = 'queued';
CREATE INDEX begun_runs_of_a_lane ON runs (org_id, pipeline, lane) WHERE state IN ('queued', 'running') AND attempt > 0;
CREATE UNIQUE INDEX one_run_per_cause ON runs (org_id, pipeline, cause) WHERE cause IS NOT NULL;
CREATE INDEX events_of_a_run ON events (org_id, run_id, id);
CREATE INDEX workers_by_sight ON workers (seen);
COMMIT;
