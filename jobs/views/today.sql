-- policies: the calibration and thresholds that each weights file was used with last, of those in `scans`. DuckDB.
-- A policy that lacks a number, or has one that is none, is passed over. One whose thresholds were measured on
-- videos (`for_settings`) holds for rows of the same settings only.
CREATE VIEW policies AS
SELECT weights_id, policy_id, slope, bias, flag, uncertain, for_settings
FROM (
    SELECT
        weights_id, "at", CASE WHEN policy ->> '$.level' = 'video' THEN settings_id END AS for_settings, policy ->> '$.policy_id' AS policy_id,
        try_cast(policy ->> '$.slope' AS DOUBLE) AS slope, try_cast(policy ->> '$.bias' AS DOUBLE) AS bias,
        try_cast(policy ->> '$.flag' AS DOUBLE) AS flag,
        try_cast(policy ->> '$.uncertain' AS DOUBLE) AS uncertain
    FROM (
        SELECT weights_id, settings_id, "at", CASE WHEN json_valid(settings) THEN settings -> '$.policy' END AS policy
        FROM scans
        WHERE NOT shadow
    )
)
WHERE policy_id IS NOT NULL AND isfinite(slope) AND isfinite(bias) AND isfinite(flag) AND isfinite(uncertain)
QUALIFY row_number() OVER (PARTITION BY weights_id ORDER BY "at" DESC) = 1;

CREATE MACRO verdict_of(p_fake, flag, uncertain) AS CASE
    WHEN p_fake IS NULL OR isnan(p_fake) OR flag IS NULL OR uncertain IS NULL THEN 'not_assessed'
    WHEN p_fake >= flag THEN 'flagged'
    WHEN p_fake >= uncertain THEN 'uncertain'
    ELSE 'not_flagged'
END;

CREATE MACRO score_of(logit, slope, bias) AS 1 / (1 + exp(-(logit * slope + bias)));

-- judged('latest'), judged('results'): the rows of that view, judged by the policy of today; by that of their scan
-- where no other is known.
CREATE MACRO judged(relation) AS TABLE
WITH applied AS (
    SELECT
        given.*,
        coalesce(policies.policy_id, given.policy_id) AS policy_today,
        coalesce(flag, threshold_flag) AS flag_today,
        coalesce(uncertain, threshold_uncertain) AS uncertain_today,
        coalesce(score_of(logit, slope, bias), p_fake) AS p_fake_today,
        slope AS slope_today, bias AS bias_today
    FROM query_table(relation) AS given
    LEFT JOIN policies
        ON given.weights_id = policies.weights_id
        AND given.policy_id <> policies.policy_id
        AND coalesce(for_settings, given.settings_id) = given.settings_id
)
SELECT *, verdict_of(p_fake_today, flag_today, uncertain_today) AS verdict_today FROM applied;

CREATE VIEW today AS FROM judged('latest')
