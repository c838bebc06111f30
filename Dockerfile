# The page of `sequence-suite demo`, for the exports in saved_models/:
#   docker build -t sequence-suite . && docker run -p 7860:7860 -v "$PWD/saved_models:/suite/saved_models" sequence-suite
FROM python:3.11-slim
WORKDIR /suite
COPY . .
RUN pip install --no-cache-dir -e '.[all,demo]'
EXPOSE 7860
CMD ["sequence-suite", "demo", "--host", "0.0.0.0", "--port", "7860"]
