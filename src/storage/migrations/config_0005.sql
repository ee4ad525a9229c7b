-- Port and certificate files of listeners with TLS (SPEC §6).

ALTER TABLE proxy_profiles ADD COLUMN https_port INTEGER;
ALTER TABLE proxy_profiles ADD COLUMN certificate_chain TEXT;
ALTER TABLE proxy_profiles ADD COLUMN certificate_key TEXT;
