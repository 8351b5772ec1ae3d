-- tracks: one row per face within one window of each row of `latest`, scored or with its reason. Spark.
CREATE VIEW tracks AS
SELECT
    video_id, uri, version, settings_id, scan_date,
    track.track_id, track.person_id, track.start_s, track.end_s, track.frames, track.face_px, track.quality,
    track.logit, track.p_fake, track.reason, track.boxes
FROM (SELECT video_id, uri, version, settings_id, scan_date, explode(tracks) AS track FROM latest)
