-- tracks: one row per face within one window of each row of `latest`, scored or with its reason. Athena (Trino).
CREATE VIEW tracks AS
SELECT
    video_id, uri, version, settings_id, scan_date,
    track_id, person_id, start_s, end_s, frames, face_px, quality, logit, p_fake, reason, boxes
FROM (SELECT video_id, uri, version, settings_id, scan_date, tracks FROM latest)
CROSS JOIN UNNEST(tracks) AS track (
    track_id, person_id, start_s, end_s, frames, face_px, quality, logit, p_fake, reason, boxes
)
