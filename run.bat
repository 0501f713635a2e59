@echo off
rem Starts an LWR server from this checkout: makes what is missing, then runs "lwr serve server.ini".
rem All arguments go to "lwr serve"; see "lwr serve --help".
setlocal
cd /d "%~dp0"

if exist .venv\Scripts\lwr.exe goto configured
echo run.bat: making .venv 1>&2
py -3 -m venv .venv || exit /b 1
.venv\Scripts\python.exe -m pip install --quiet --disable-pip-version-check --editable .[server] || exit /b 1

:configured
if not exist server.ini copy server.ini.sample server.ini > nul
.venv\Scripts\lwr.exe serve server.ini %*
exit /b %errorlevel%
